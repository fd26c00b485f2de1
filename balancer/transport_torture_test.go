package balancer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/limpet-go/limpet/balancer"
)

// moody serves requests as no backend should, and each as another one does. What
// it says names the request it is for, a few times over.
func moody(t *testing.T, c net.Conn, seen *sync.Map) {
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		id := req.Header.Get("Id")
		if _, twice := seen.LoadOrStore(id, true); twice && req.Method == "POST" {
			t.Errorf("%s came twice", id)
		}
		early := rand.IntN(8) == 0
		if early {
			fmt.Fprintf(c, "HTTP/1.1 413 Too Large\r\nId: %s\r\nContent-Length: %d\r\n\r\n%[1]s", id, len(id))
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		if strings.ReplaceAll(string(body), id, "") != "" {
			t.Errorf("the body of %s is %.50q", id, body)
		}
		if len(body) > 0 && req.ContentLength < 0 && req.Trailer.Get("Id") != id {
			t.Errorf("the trailer of %s: %v", id, req.Trailer)
		}
		if early {
			continue
		}
		text := strings.Repeat(id, 1+rand.IntN(1000))
		head := "HTTP/1.1 200 OK\r\nId: " + id + "\r\n"
		var answer string
		hangUp := false
		switch rand.IntN(12) {
		case 0:
			answer = "HTTP/1.1 103 Early Hints\r\nId: " + id + "\r\n\r\n" + head + "Content-Length: 0\r\n\r\n"
		case 1:
			answer = "HTTP/1.1 204 No Content\r\nId: " + id + "\r\n\r\n"
		case 2:
			answer, hangUp = head+"Connection: close\r\n\r\n"+text, true
		case 3: // more than was asked for
			answer = fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(text), text) + "HTTP/1.1 200 OK\r\nId: evil\r\nContent-Length: 4\r\n\r\nevil"
		case 4: // not malformed for a start
			answer, hangUp = head+"Transfer-Encoding: chunked\r\n\r\n5\r\n", true
		case 5, 6, 7:
			answer = fmt.Sprintf("%sTrailer: Id\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nId: %s\r\n\r\n", head, len(text), text, id)
		default:
			answer = fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(text), text)
		}
		if !hangUp && rand.IntN(20) == 0 { // dies
			answer, hangUp = answer[:rand.IntN(2)*rand.IntN(len(answer))], true
			if rand.IntN(2) == 0 {
				c.(*net.TCPConn).SetLinger(0)
			}
		}
		for len(answer) > 0 {
			n := 1 + rand.IntN(4000)
			if n+100 > len(answer) { // what is too much mustn't come later: nobody could know
				n = len(answer)
			}
			if _, err := io.WriteString(c, answer[:n]); err != nil {
				return
			}
			answer = answer[n:]
			if rand.IntN(4) == 0 {
				runtime.Gosched()
			}
		}
		if hangUp {
			return
		}
	}
}

// Many clients that go away in the middle, backends that die in the middle: no
// request and no answer is ever mixed with another one, what isn't idempotent
// arrives once, and nothing is left behind.
func TestTorture(t *testing.T) {
	t.Parallel()
	for name, wrapped := range map[string]bool{"TCP": false, "counted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			torture(t, wrapped)
		})
	}
}

func torture(t *testing.T, wrapped bool) {
	var seen sync.Map
	s := reach(t, raw(t, func(c net.Conn) { moody(t, c, &seen) }))
	var open atomic.Int64 // of those that are wrapped
	dial := s.Dial
	s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil || !wrapped {
			return c, err
		}
		open.Add(1)
		return &counted{TCPConn: c.(*net.TCPConn), open: &open}, nil
	}
	s.MaxIdle = 8
	requests := 300
	if testing.Short() {
		requests = 50
	}
	var whole atomic.Int64
	var all sync.WaitGroup
	for k := range 16 {
		all.Go(func() {
			for i := range requests {
				if ask(t, s, fmt.Sprintf("<%d-%d>", k, i)) {
					whole.Add(1)
				}
			}
		})
	}
	all.Wait()
	s.CloseIdleConnections()
	if n := open.Load(); n != 0 {
		t.Errorf("%d connections are left open", n)
	}
	if got, want := whole.Load(), int64(requests*16/4); got < want {
		t.Errorf("%d whole answers, want more than %d", got, want)
	}
}

// counted counts itself out when it is closed.
type counted struct {
	*net.TCPConn
	open *atomic.Int64
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.TCPConn.Close()
}

// ask sends a request that it may give up anywhere, and reports whether it got a
// whole answer.
func ask(t *testing.T, s *site, id string) bool {
	ctx, cancel := context.WithCancel(balancer.WithBackend(t.Context(), s.Backend))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://x/", nil)
	if err != nil {
		t.Error(err)
		return false
	}
	req.Header["Id"] = []string{id}
	var body *source
	mood := rand.IntN(10)
	if rand.IntN(2) == 0 {
		text := strings.Repeat(id, 1+rand.IntN(3000))
		body = newSource(strings.NewReader(text))
		switch {
		case mood == 0:
			body = newSource(io.MultiReader(strings.NewReader(text), late(func() { go cancel() }), failing{errEnough}))
		case mood == 1:
			body = newSource(io.MultiReader(strings.NewReader(text), failing{io.ErrNoProgress}))
		case mood == 2:
			body = newSource(io.MultiReader(strings.NewReader(text), late(cancel)))
		}
		req.Method, req.Body, req.ContentLength = "POST", interruptible{body}, int64(len(text))
		if mood < 3 || rand.IntN(2) == 0 {
			req.ContentLength, req.Trailer = -1, http.Header{"Id": {id}}
		}
	}
	if body == nil && rand.IntN(2) == 0 {
		req.Method = "POST" // without a body
	}
	if mood == 3 {
		go cancel()
	}
	res, err := s.RoundTrip(req)
	if body != nil && err != nil && (body.reading.Load() != 0 || !body.closed.Load()) {
		t.Errorf("%s: %d Reads are under way, closed: %v", id, body.reading.Load(), body.closed.Load())
	}
	if err != nil {
		if !errors.As(err, new(*balancer.Error)) {
			t.Errorf("%s: %v", id, err)
		}
		return false
	}
	defer res.Body.Close()
	if got := res.Header.Get("Id"); got != id {
		t.Errorf("%s: the answer of %s", id, got)
	}
	var got []byte
	switch mood {
	case 4:
		return false
	case 5:
		got, err = io.ReadAll(io.LimitReader(res.Body, 1000))
		if err == nil {
			err = io.ErrNoProgress
		}
	case 6:
		go res.Body.Close()
		fallthrough
	default:
		got, err = io.ReadAll(res.Body)
	}
	text := strings.ReplaceAll(string(got), id, "")
	if text != "" && (err == nil || !strings.HasPrefix(id, text)) {
		t.Errorf("%s: body %.50q", id, text)
	}
	if err == nil && len(res.Trailer) > 0 && res.Trailer.Get("Id") != id {
		t.Errorf("%s: trailer %v", id, res.Trailer)
	}
	return err == nil
}

// late calls itself at the end of a body.
type late func()

func (l late) Read([]byte) (int, error) {
	l()
	return 0, io.EOF
}
