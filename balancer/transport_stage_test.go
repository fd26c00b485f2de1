package balancer_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A stalled is a connection that tells of its first Write.
type stalled struct {
	*watched
	wrote chan struct{}
	told  atomic.Bool
}

func (s *stalled) Write(p []byte) (int, error) {
	if s.told.CompareAndSwap(false, true) {
		close(s.wrote)
	}
	return s.Conn.Write(p)
}

// A stage is how far a request comes before its backend stalls.
type stage struct {
	name   string
	https  bool
	listen func(c net.Conn, reached func()) // what the backend does, then it waits
	body   io.Reader                        // of the request; one that ends with errEnough waits to be interrupted
	write  bool                             // reached is when the Transport begins to write, on a connection without a buffer
	sent   bool
	answer bool // RoundTrip returns one
}

func stages() []stage {
	request := func(c net.Conn, says string) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, says)
	}
	says := func(what string) func(net.Conn, func()) {
		return func(c net.Conn, reached func()) {
			request(c, what)
			reached()
		}
	}
	endless := func() io.Reader { return io.MultiReader(strings.NewReader("hello"), failing{errEnough}) }
	large := func() io.Reader { return strings.NewReader(strings.Repeat("x", 64<<20)) } // more than any socket takes
	return []stage{
		{name: "TLS handshake", https: true, listen: func(c net.Conn, reached func()) {
			c.Read(make([]byte, 1))
			reached()
		}},
		{name: "writing the header", write: true},
		{name: "writing a header beside a body", write: true, body: strings.NewReader("hello")},
		{name: "writing the body", sent: true, body: large(), listen: says("")},
		{name: "reading the request's body", sent: true, body: endless(), listen: says("")},
		{name: "waiting for the answer", sent: true, listen: says("")},
		{name: "within the status", sent: true, listen: says("HTTP/1.1 2")},
		{name: "within the header", sent: true, listen: says("HTTP/1.1 200 OK\r\nContent-Le")},
		{name: "behind an informational answer", sent: true, listen: says("HTTP/1.1 103 Early Hints\r\n\r\n")},
		{name: "within an informational answer", sent: true, listen: says("HTTP/1.1 103 Early Hints\r\nX"), body: strings.NewReader("hello")},
		{name: "before the body", answer: true, listen: says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")},
		{name: "within the body", answer: true, listen: says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")},
		{name: "within a chunk's size", answer: true, listen: says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1")},
		{name: "within a chunk", answer: true, listen: says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf\r\nhello")},
		{name: "within the trailer", answer: true, listen: says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y")},
		{name: "within a body without a length", answer: true, listen: says("HTTP/1.1 200 OK\r\n\r\nhello")},
		{name: "within an early answer", answer: true, body: endless(), listen: says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")},
		{name: "within an early answer to a large body", answer: true, body: large(), listen: says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")},
		{name: "within a tunnel", answer: true, listen: says("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello")},
	}
}

// Wherever a request is when its context or its backend ends: it ends with the
// reason, its connection is closed, and its body is closed and read no more.
func TestEndAtEachStage(t *testing.T) {
	t.Parallel()
	for _, end := range []struct {
		name string
		do   func(*site, context.CancelFunc)
		want error
	}{
		{"client is gone", func(_ *site, cancel context.CancelFunc) { cancel() }, context.Canceled},
		{"backend is off", func(s *site, _ context.CancelFunc) { s.Off("a") }, balancer.ErrLost},
		{"backend is removed", func(s *site, _ context.CancelFunc) { s.Remove("a") }, balancer.ErrLost},
	} {
		for _, st := range stages() {
			t.Run(end.name+"/"+st.name, func(t *testing.T) {
				t.Parallel()
				reached := make(chan struct{})
				url := "http://a.test"
				if st.listen != nil {
					url = raw(t, func(c net.Conn) {
						st.listen(c, func() { close(reached) })
						<-t.Context().Done()
					})
				}
				if st.https {
					url = strings.Replace(url, "http", "https", 1)
				}
				s := reach(t, url)
				s.DialTimeout = time.Minute
				dial, conns := s.Dial, make(chan *watched, 1)
				s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					if st.write {
						here, there := net.Pipe()
						t.Cleanup(func() { there.Close() })
						w := &watched{Conn: here, closed: make(chan struct{})}
						conns <- w
						return &stalled{watched: w, wrote: reached}, nil
					}
					c, err := dial(ctx, network, addr)
					w := &watched{Conn: c, closed: make(chan struct{})}
					conns <- w
					return w, err
				}
				ctx, cancel := context.WithCancel(balancer.WithBackend(t.Context(), s.Backend))
				defer cancel()
				req, err := http.NewRequestWithContext(ctx, "POST", "http://x/", nil)
				must(t, err)
				var body *source
				if st.body != nil {
					body = newSource(st.body)
					req.Body, req.ContentLength = interruptible{body}, -1
				}
				// An answer is there only behind RoundTrip, an end without one within it.
				var res *http.Response
				if st.answer {
					res, err = s.RoundTrip(req)
					must(t, err)
					<-reached
					end.do(s, cancel)
					_, err = io.ReadAll(res.Body)
					if !errors.Is(err, end.want) {
						t.Errorf("reading the answer: %v, want %v", err, end.want)
					}
					res.Body.Close()
				} else {
					go func() {
						<-reached
						end.do(s, cancel)
					}()
					_, err = s.RoundTrip(req)
					fails(t, err, st.sent, end.want)
				}
				<-(<-conns).closed
				if body != nil && (body.reading.Load() != 0 || !body.closed.Load()) {
					t.Errorf("%d Reads are under way, closed: %v", body.reading.Load(), body.closed.Load())
				}
				if n := s.dials.Load(); n > 1 {
					t.Errorf("%d dials", n)
				}
			})
		}
	}
}
