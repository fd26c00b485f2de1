package balancer_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

func TestMalformedAnswers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"not HTTP":            "SSH-2.0-OpenSSH\r\n",
		"no status":           "HTTP/1.1\r\n\r\n",
		"status of two":       "HTTP/1.1 20 OK\r\n\r\n",
		"version":             "HTTP/x 200 OK\r\n\r\n",
		"no colon":            "HTTP/1.1 200 OK\r\nfoo\r\n\r\n",
		"two lengths":         "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"sign in the length":  "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
		"unknown encoding":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: fugazi\r\n\r\n",
		"two encodings":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
		"cut in the header":   "HTTP/1.1 200 OK\r\nContent-Le",
		"endless header":      "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2<<20),
		"endless fields":      "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 1<<18),
		"endless information": strings.Repeat("HTTP/1.1 102 Processing\r\nX: "+strings.Repeat("x", 1000)+"\r\n\r\n", 1100),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := reach(t, raw(t, says(answer)))
			_, err := s.send(t.Context(), "GET", "")
			fails(t, err, true, nil)
			if strings.HasPrefix(name, "endless") && !strings.Contains(err.Error(), "larger than") {
				t.Error(err)
			}
		})
	}
}

// The limit is for headers: not for bodies, nor for informational answers that somebody looks at.
func TestLargeAnswers(t *testing.T) {
	t.Parallel()
	const large = 3 << 20
	information := strings.Repeat("HTTP/1.1 102 Processing\r\nX: "+strings.Repeat("x", 1000)+"\r\n\r\n", 2000)
	s := reach(t, raw(t, says(information+"HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 1<<19)+"\r\n\r\n"+strings.Repeat("y", large))))
	n := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
		n++
		return nil
	}})
	res, err := s.send(ctx, "GET", "")
	if got := read(t, res, err); len(got) != large || n != 2000 {
		t.Errorf("a body of %d bytes, behind %d informational answers", len(got), n)
	}
}

// Deaths within an answer are never its end.
func TestBrokenAnswers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"length":       "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
		"in a chunk":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nhello",
		"last chunk":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"trailer":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
		"bad chunk":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n",
		"chunk's size": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nffffffffffffffffff\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := reach(t, raw(t, says(answer)))
			res, err := s.send(t.Context(), "GET", "")
			must(t, err)
			defer res.Body.Close()
			got, err := io.ReadAll(res.Body)
			fails(t, err, true, nil)
			if string(got) != "hello" {
				t.Errorf("got %q", got)
			}
			if _, again := res.Body.Read(make([]byte, 1)); again != err {
				t.Errorf("reading on: %v", again)
			}
		})
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{"before the answer": "", "within it": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := reach(t, raw(t, func(c net.Conn) {
				http.ReadRequest(bufio.NewReader(c))
				io.WriteString(c, answer)
				io.Copy(io.Discard, c)
			}))
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			res, err := s.send(ctx, "GET", "")
			if answer == "" {
				fails(t, err, true, context.DeadlineExceeded)
				return
			}
			if err == nil {
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	}
}

func TestTrace(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
	}))
	t.Cleanup(server.Close)
	s := reach(t, server.URL)
	var mu sync.Mutex // the body's hooks run beside the answer's
	var events []string
	waits := 0
	say := func(event string) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, event)
	}
	ctx := httptrace.WithClientTrace(balancer.WithBackend(t.Context(), s.Backend), &httptrace.ClientTrace{
		GetConn: func(string) { say("get") },
		GotConn: func(i httptrace.GotConnInfo) {
			if i.Reused != i.WasIdle || i.Conn == nil {
				t.Errorf("%+v", i)
			}
			say("got")
		},
		WroteHeaders:         func() { say("header") },
		Wait100Continue:      func() { waits++ },
		Got100Continue:       func() { say("continue") },
		GotFirstResponseByte: func() { say("first") },
	})
	for n := range 2 {
		events = nil
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://x/", strings.NewReader("hello"))
		req.Header.Set("Expect", "100-continue")
		res, err := s.RoundTrip(req)
		read(t, res, err)
		if want := []string{"get", "got", "header", "first", "continue"}; !slices.Equal(events, want) || waits != n+1 {
			t.Errorf("events %q and %d waits, want %q", events, waits, want)
		}
	}

	stop := errors.New("stop")
	s = reach(t, raw(t, says("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")))
	ctx = httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { return stop }})
	_, err := s.send(ctx, "GET", "")
	fails(t, err, true, stop)
}

// A backend that comes back is reached over new connections, and what one life of
// it has begun ends with that.
func TestLives(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) {
		answers(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	}))
	for range 3 {
		half, err := s.send(t.Context(), "GET", "")
		must(t, err)
		whole, err := s.send(t.Context(), "GET", "")
		read(t, whole, err)
		must(t, s.Off("a"))
		half.Body.Close()
		must(t, s.Undrain("a"))
	}
	if n := s.dials.Load(); n != 6 {
		t.Errorf("%d dials, want 6", n)
	}
}

// A request without a body costs 9 allocations, nearly all of them made by parsing
// the answer; the race detector adds one. Another one should be worth it.
func TestAllocations(t *testing.T) {
	const most = 10
	s := reach(t, raw(t, func(c net.Conn) {
		request, answer := make([]byte, 1<<10), []byte("HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 5\r\n\r\nhello")
		for {
			if _, err := c.Read(request); err != nil {
				return
			}
			c.Write(answer)
		}
	}))
	ctx, cancel := context.WithCancel(balancer.WithBackend(t.Context(), s.Backend))
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://x/", nil)
	n := testing.AllocsPerRun(1000, func() {
		res, err := s.RoundTrip(req)
		must(t, err)
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	})
	if n > most {
		t.Errorf("%v allocations, want %d at most", n, most)
	}
}
