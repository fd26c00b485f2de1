package balancer_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A buffered is a body that says how much of it can be read without waiting.
type buffered struct {
	*strings.Reader
	there  int
	fails  error
	aside  atomic.Bool // it was read by another goroutine than RoundTrip's
	closed atomic.Int32
}

func (b *buffered) Buffered() int { return b.there }

func (b *buffered) Read(p []byte) (int, error) {
	if !bytes.Contains(debug.Stack(), []byte("(*Client).RoundTrip")) {
		b.aside.Store(true)
	}
	if b.fails != nil {
		return 0, b.fails
	}
	return b.Reader.Read(p)
}

func (b *buffered) Close() error {
	b.closed.Add(1)
	return nil
}

// post returns a POST with the body that open returns, each time anew.
func (s *site) post(t *testing.T, open func() *buffered) (*http.Request, *buffered) {
	body := open()
	req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", body)
	must(t, err)
	req.ContentLength = body.Size()
	req.GetBody = func() (io.ReadCloser, error) { return open(), nil }
	return req, body
}

// A small body of which all is there is sent by RoundTrip's own goroutine, together with the
// head. Any other is sent by a goroutine of its own.
func TestBodyThatIsThere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		length int
		lacks  int // bytes that aren't there
		change func(*http.Request)
		aside  bool
	}{
		{name: "one byte", length: 1},
		{name: "a small one", length: 100},
		{name: "the largest", length: 4 << 10},
		{name: "larger", length: 4<<10 + 1, aside: true},
		{name: "not all of it", length: 100, lacks: 1, aside: true},
		{name: "none of it", length: 100, lacks: 100, aside: true},
		{name: "more than the request's", length: 100, lacks: -1, aside: true},
		{name: "of unknown length", length: 100, change: func(r *http.Request) { r.ContentLength = -1 }, aside: true},
		{name: "that can't be read again", length: 100, change: func(r *http.Request) { r.GetBody = nil }, aside: true},
		{name: "that has to be asked for", length: 100, change: func(r *http.Request) { r.Header.Set("Expect", "100-continue") }, aside: true},
		{name: "with a trailer", length: 100, change: func(r *http.Request) { r.Trailer = http.Header{"X": nil} }, aside: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Repeat("x", tt.length)
			s := reach(t, raw(t, func(c net.Conn) {
				room := make([]byte, 8<<10)
				for {
					n, err := c.Read(room)
					if err != nil {
						return
					}
					head, body, _ := strings.Cut(string(room[:n]), "\r\n\r\n")
					answer := "in one piece"
					if body != text {
						if strings.Contains(head, "Expect") {
							io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
						}
						_, _ = io.ReadAtLeast(c, room, tt.length-len(body))
						answer = "in pieces"
					}
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
				}
			}))
			for range 2 { // on a new connection, and on a kept one
				req, body := s.post(t, func() *buffered { return &buffered{Reader: strings.NewReader(text), there: tt.length - tt.lacks} })
				if tt.change != nil {
					tt.change(req)
				}
				res, err := s.RoundTrip(req)
				if got := read(t, res, err); got != "in one piece" && !tt.aside {
					t.Errorf("the backend got it %s", got)
				}
				if body.aside.Load() != tt.aside || body.closed.Load() == 0 {
					t.Errorf("read by another goroutine: %v, closed: %d times", body.aside.Load(), body.closed.Load())
				}
			}
		})
	}
}

// A kept connection has been closed when a request with a body that is there is about to be
// written: nothing was sent, and the request is sent again with all of its body.
func TestBodyThatIsThereOnClosedConnection(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	var conns atomic.Int32
	s := reach(t, raw(t, func(c net.Conn) {
		first := conns.Add(1) == 1
		room := make([]byte, 8<<10)
		n, _ := c.Read(room)
		_, body, _ := strings.Cut(string(room[:n]), "\r\n\r\n")
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		if first {
			c.Close()
			close(gone)
		}
	}))
	send := func() {
		t.Helper()
		req, _ := s.post(t, func() *buffered { return &buffered{Reader: strings.NewReader("hello"), there: 5} })
		res, err := s.RoundTrip(req)
		if got := read(t, res, err); got != "hello" {
			t.Errorf("the backend got %q", got)
		}
	}
	send()
	<-gone
	send()
	if n := s.dials.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// A connection without a socket takes only what the origin reads. An origin that answers before
// it has read the body is heard all the same.
func TestBodyThatIsThereOnPipe(t *testing.T) {
	t.Parallel()
	s := reach(t, "http://site.example")
	s.Dial = func(context.Context, string, string) (net.Conn, error) {
		conn, origin := net.Pipe()
		go func() {
			defer origin.Close()
			_, _ = http.ReadRequest(bufio.NewReaderSize(origin, 1<<10)) // and no byte more
			_, _ = io.WriteString(origin, "HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")
		}()
		return conn, nil
	}
	req, _ := s.post(t, func() *buffered {
		return &buffered{Reader: strings.NewReader(strings.Repeat("x", 4<<10)), there: 4 << 10}
	})
	ctx, cancel := context.WithTimeout(req.Context(), 10*time.Second)
	defer cancel()
	res, err := s.RoundTrip(req.WithContext(ctx))
	if got := read(t, res, err); got != "large" {
		t.Errorf("got %q", got)
	}
}

// A body that fails although all of it was to be there fails its request, which isn't sent.
func TestBodyThatIsThereFails(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) {
		if n, _ := c.Read(make([]byte, 1)); n > 0 {
			t.Error("the backend got something")
		}
	}))
	bad := errors.New("bad")
	for _, tt := range []struct {
		name string
		body *buffered
		want error
	}{
		{"fails", &buffered{Reader: strings.NewReader("hello"), there: 5, fails: bad}, bad},
		{"ends early", &buffered{Reader: strings.NewReader("hell"), there: 5}, io.ErrUnexpectedEOF},
		{"is empty", &buffered{Reader: strings.NewReader(""), there: 5}, io.ErrUnexpectedEOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, body := s.post(t, func() *buffered { return tt.body })
			req.ContentLength = 5
			_, err := s.RoundTrip(req)
			fails(t, err, false, tt.want)
			var e *balancer.Error
			if !errors.As(err, &e) || !e.Invalid || body.closed.Load() == 0 {
				t.Errorf("%v, closed: %d times", err, body.closed.Load())
			}
		})
	}
}
