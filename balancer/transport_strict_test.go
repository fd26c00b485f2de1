package balancer_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A space would end the target of a request before its end: some backends take
// what follows for the version, and HTTP/1.0 knows no chunks.
func TestRequestTargetWithSpace(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*http.Request){
		"query":      func(r *http.Request) { r.URL.RawQuery = "a HTTP/1.0" },
		"opaque":     func(r *http.Request) { r.URL.Opaque = "/a HTTP/1.0" },
		"CONNECT":    func(r *http.Request) { r.Method, r.URL.Opaque, r.URL.Path = "CONNECT", "a HTTP/1.0", "" },
		"with slash": func(r *http.Request) { r.URL.Opaque = "//a HTTP/1.0" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lines := make(chan string, 1)
			s := reach(t, raw(t, func(c net.Conn) {
				line, _ := bufio.NewReader(c).ReadString('\n')
				lines <- line
				io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
			}))
			req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "GET", "http://x/", nil)
			must(t, err)
			spoil(req)
			res, err := s.RoundTrip(req)
			if err != nil {
				return
			}
			res.Body.Close()
			if line := <-lines; strings.Count(line, " ") != 2 {
				t.Errorf("sent %q", line)
			}
		})
	}
}

// Connections on which nothing more must be sent.
func TestNotKept(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, method string
		header       http.Header
		left         int // bytes that the connection takes
	}{
		{"close in the header", "GET", http.Header{"Connection": {"close"}}, 1 << 20},
		{"close in a list", "GET", http.Header{"Connection": {"x, Close"}}, 1 << 20},
		{"CONNECT", "CONNECT", nil, 1 << 20}, // which has no body: RFC 9110, section 9.3.6
		{"half a request", "GET", nil, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := reach(t, raw(t, func(c net.Conn) {
				for b := make([]byte, 4096); ; {
					if _, err := c.Read(b); err != nil {
						return
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
				}
			}))
			dial, conns := s.Dial, make(chan *watched, 1)
			s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := dial(ctx, network, addr)
				w := &watched{Conn: c, closed: make(chan struct{})}
				conns <- w
				return &limited{watched: w, left: tt.left, err: syscall.EPIPE}, err
			}
			req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), tt.method, "http://x/", nil)
			must(t, err)
			req.Header = tt.header
			res, err := s.RoundTrip(req)
			must(t, err)
			io.ReadAll(res.Body)
			if w := <-conns; !closed(w.closed) {
				t.Error("the connection is kept")
			}
			res.Body.Close()
		})
	}
}

// What frames a request is the Transport's to say, however a field is spelled.
func TestFramingFieldsInAnySpelling(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"content-length", "CONTENT-LENGTH", "transfer-encoding", "Transfer-encoding", "host", "trailer"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := reach(t, "http://a.test")
			r := record()
			s.Dial = func(context.Context, string, string) (net.Conn, error) { return r, nil }
			req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", strings.NewReader("hello"))
			must(t, err)
			req.Header[name] = []string{"5"}
			res, err := s.RoundTrip(req)
			if err != nil {
				r.Close()
			} else {
				res.Body.Close()
			}
			if sent := <-r.sent; strings.Contains(sent, "\r\n"+name+":") {
				t.Errorf("sent %q", sent)
			}
		})
	}
}

// RFC 9110, section 6.5.1: fields that frame or route a message are none of its
// trailer's. A client's request brings what it likes behind one that it announced.
func TestTrailersThatFrame(t *testing.T) {
	t.Parallel()
	s := reach(t, "http://a.test")
	r := record()
	s.Dial = func(context.Context, string, string) (net.Conn, error) { return r, nil }
	req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", nil)
	must(t, err)
	req.Trailer, req.ContentLength = http.Header{"X": nil}, -1
	req.Body = io.NopCloser(io.MultiReader(strings.NewReader("hello"), late(func() {
		for _, name := range []string{"X", "Content-Length", "Transfer-Encoding", "Host"} {
			req.Trailer[name] = []string{"7"}
		}
	})))
	res, err := s.RoundTrip(req)
	if err != nil {
		r.Close()
	} else {
		res.Body.Close()
	}
	_, trailer, _ := strings.Cut(<-r.sent, "\r\n0\r\n")
	if trailer != "" && trailer != "X: 7\r\n\r\n" {
		t.Errorf("sent the trailer %q", trailer)
	}
}

// A body that fails while an early answer is read is the reason of what follows.
func TestBodyFailsWithinAnEarlyAnswer(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
		io.Copy(io.Discard, c)
	}))
	gone, gate := errors.New("client is gone"), make(chan struct{})
	body := io.NopCloser(io.MultiReader(strings.NewReader("x"), late(func() { <-gate }), failing{gone}))
	req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", body)
	must(t, err)
	req.ContentLength = 100
	res, err := s.RoundTrip(req)
	must(t, err)
	defer res.Body.Close()
	io.ReadFull(res.Body, make([]byte, 5))
	close(gate)
	if _, err := io.ReadAll(res.Body); !errors.Is(err, gone) {
		t.Errorf("reading the answer: %v, want %v", err, gone)
	}
}

// A connection that its backend will close soon doesn't wait for one that may
// stay longer.
func TestIdleTimeoutsOfTheirOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := reach(t, "http://a.test")
		s.IdleTimeout = time.Minute
		ends := make(chan time.Time, 2)
		arrived := make(chan struct{}, 2)
		both := make(chan struct{})
		fields := make(chan string, 2)
		fields <- "X: y"
		fields <- "Keep-Alive: timeout=5"
		s.Dial = func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				defer there.Close()
				r := bufio.NewReader(there)
				http.ReadRequest(r)
				arrived <- struct{}{}
				<-both
				io.WriteString(there, "HTTP/1.1 204 No Content\r\n"+<-fields+"\r\n\r\n")
				r.ReadByte()
				ends <- time.Now()
			}()
			return here, nil
		}
		for range 2 {
			go func() {
				res, err := s.send(t.Context(), "GET", "")
				read(t, res, err)
			}()
		}
		<-arrived
		<-arrived
		begun := time.Now()
		both <- struct{}{}
		synctest.Wait()
		both <- struct{}{}
		if got := (<-ends).Sub(begun); got > 5*time.Second {
			t.Errorf("closed after %v, which its backend did after 5 s", got)
		}
		<-ends
	})
}
