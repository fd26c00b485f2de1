package middleware_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// told reports whatever reached a backend that isn't of one request. seen has the
// requests that came before.
func told(t *testing.T, req *http.Request, seen *sync.Map) {
	id, front := req.Header.Get("Id"), req.Header.Get("Front")
	if _, twice := seen.LoadOrStore(id, true); twice && req.Method == "POST" {
		t.Errorf("%s came twice", id)
	}
	if req.RequestURI != "/"+id+"?"+id || req.Host != id+".test" {
		t.Errorf("%s: %s at %s", id, req.RequestURI, req.Host)
	}
	for name, values := range req.Header {
		want := id
		switch name {
		case "X-Forwarded-For", "X-Real-Ip":
			want = "127.0.0.1"
		case "X-Forwarded-Proto", "Front":
			want = front
		case "X-Forwarded-Host":
			want = req.Host
		case "Forwarded":
			want = fmt.Sprintf(`for=127.0.0.1;host="%s";proto=%s`, req.Host, front)
		case "Cookie":
			want = "id=" + id
		case "Content-Length", "Accept-Encoding":
			continue
		}
		for _, v := range values {
			if v != want {
				t.Errorf("%s: the field %s is %q, want %q", id, name, v, want)
			}
		}
	}
}

// capricious answers requests well, or early, or not to the end.
func capricious(t *testing.T, c net.Conn, r *bufio.Reader, seen *sync.Map) {
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		told(t, req, seen)
		id := req.Header.Get("Id")
		head := "Id: " + id + "\r\nSet-Cookie: a=" + id + "\r\nVary: " + id + "\r\nVary: " + id + "\r\n"
		early := rand.IntN(16) == 0
		if early {
			fmt.Fprintf(c, "HTTP/1.1 413 Content Too Large\r\n%sContent-Length: 0\r\n\r\n", head)
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		if strings.ReplaceAll(string(body), id, "") != "" || req.Trailer.Get("Id") != "" && req.Trailer.Get("Id") != id {
			t.Errorf("%s: body %.50q, trailer %v", id, body, req.Trailer)
		}
		if early {
			continue
		}
		text := strings.Repeat(id, 1+rand.IntN(1000))
		answer := fmt.Sprintf("HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s", head, len(text), text)
		mood := rand.IntN(8)
		switch mood {
		case 0:
			answer = fmt.Sprintf("HTTP/1.1 200 OK\r\n%sTrailer: T\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nT: %s\r\n\r\n", head, len(text), text, id)
		case 1:
			answer = "HTTP/1.1 103 Early Hints\r\nId: " + id + "\r\n\r\n" + answer
		case 2:
			answer = answer[:rand.IntN(2)*rand.IntN(len(answer))]
		}
		if _, err := io.WriteString(c, answer); err != nil || mood == 2 {
			return
		}
	}
}

// knock sends a request that it may give up anywhere, and reports whether it got a
// whole answer.
func knock(t *testing.T, c *http.Client, url, id string) bool {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		if h.Get("Id") != id {
			t.Errorf("%s: early hints %v", id, h)
		}
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, []string{"GET", "PUT", "POST"}[rand.IntN(3)], url+"/"+id+"?"+id, nil)
	if err != nil {
		t.Error(err)
		return false
	}
	mood := rand.IntN(10)
	if req.Method != "GET" {
		text := strings.Repeat(id, 1+rand.IntN(8000))
		body := io.MultiReader(strings.NewReader(text), eof(func() {
			if mood == 0 {
				cancel()
			}
		}))
		req.Body, req.ContentLength = io.NopCloser(body), int64(len(text))
		if rand.IntN(2) == 0 {
			req.ContentLength, req.Trailer = -1, http.Header{"Id": {id}}
		}
	}
	front, _, _ := strings.Cut(url, ":")
	req.Host = id + ".test"
	req.Header = http.Header{
		"Id": {id}, "Front": {front}, "User-Agent": {id}, "Cookie": {"id=" + id}, "Twice": {id, id},
		"X-Forwarded-For": {"evil"}, "X-Forwarded-Host": {"evil"}, "Forwarded": {"evil"}, "X_real_ip": {"evil"},
	}
	for range rand.IntN(20) {
		req.Header[fmt.Sprintf("F%d", rand.IntN(30))] = []string{id}
	}
	if mood == 1 {
		go cancel()
	}
	res, err := c.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	if res.StatusCode >= 500 {
		return false
	}
	cookies := res.Header["Set-Cookie"] // the pin among them
	got := append([]string{res.Header.Get("Id"), cookies[0], cookies[len(cookies)-1]}, res.Header["Vary"]...)
	if want := []string{id, "a=" + id, "m=" + id, id, id, id}; !slices.Equal(got, want) {
		t.Errorf("%s: the answer has %q, want %q", id, got, want)
	}
	if mood == 2 {
		return false
	}
	text, err := io.ReadAll(res.Body)
	if rest := strings.ReplaceAll(string(text), id, ""); rest != "" && (err == nil || !strings.HasPrefix(id, rest)) {
		t.Errorf("%s: body %.50q", id, text)
	}
	if trailer := res.Trailer.Get("T"); trailer != "" && trailer != id {
		t.Errorf("%s: trailer %q", id, trailer)
	}
	return err == nil
}

// eof calls itself at the end of a body.
type eof func()

func (f eof) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// Many clients that go away in the middle, backends that die in the middle: what
// belongs to one request never gets into another one, in neither direction.
func TestTorture(t *testing.T) {
	t.Parallel()
	var seen sync.Map
	var backends []*balancer.Backend
	for _, id := range []string{"a", "b", "c"} {
		b, err := balancer.NewBackend(id, rawBackend(t, func(c net.Conn, r *bufio.Reader) { capricious(t, c, r, &seen) }), 1)
		if err != nil {
			t.Fatal(err)
		}
		backends = append(backends, b)
	}
	pool, err := balancer.NewPool(nil, backends...)
	if err != nil {
		t.Fatal(err)
	}
	gw := newGateway(t, pool, &limpet.Options{Retry: limpet.Retry{Floor: 1e6}})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, before := r.Header.Get("Id"), r.Header.Clone()
		w.Header()["Vary"] = append(make([]string, 0, 8), id) // has room for others'
		w.Header()["Set-Cookie"] = []string{"m=" + id}
		gw.ServeHTTP(w, r)
		for name, values := range before {
			if !slices.Equal(values, r.Header[name]) {
				t.Errorf("%s: the client's %s is now %q", id, name, r.Header[name])
			}
		}
	})
	var whole atomic.Int64
	var all sync.WaitGroup
	var servers []*httptest.Server
	for _, two := range []bool{false, true} {
		srv := httptest.NewUnstartedServer(h)
		srv.Config.ErrorLog = log.New(io.Discard, "", 0)
		if srv.EnableHTTP2 = two; two {
			srv.StartTLS()
		} else {
			srv.Start()
		}
		t.Cleanup(srv.Close)
		servers = append(servers, srv)
		for k := range 8 {
			all.Go(func() {
				for i := range 60 {
					if knock(t, srv.Client(), srv.URL, fmt.Sprintf("x%t-%d-%dx", two, k, i)) {
						whole.Add(1)
					}
				}
			})
		}
	}
	all.Wait()
	for _, srv := range servers {
		srv.Close() // which doesn't wait for the last handlers of HTTP/2
	}
	for _, b := range backends {
		eventually(t, b.ID()+" has no requests left", func() bool { return b.InFlight() == 0 })
	}
	if n := whole.Load(); n < 240 {
		t.Errorf("%d whole answers of 960", n)
	}
}
