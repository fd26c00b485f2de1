package balancer_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A connection whose answer went wrong is closed, though the backend holds it and
// has said no more: nobody knows where the next answer begins.
func TestBrokenAnswersAreNotKept(t *testing.T) {
	t.Parallel()
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
	for name, answer := range map[string]string{
		"chunk's size": chunked + "x\r\n",
		"chunk's end":  chunked[:len(chunked)-2] + "XY",
		"bare LF":      chunked + "0\n",
		"trailer":      chunked + "0\r\nX y\r\n\r\n",
		"header":       "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
		"status":       "HTTP/1.1 OK\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := reach(t, raw(t, func(c net.Conn) { answers(c, answer) }))
			dial, conns := s.Dial, make(chan *watched, 1)
			s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := dial(ctx, network, addr)
				w := &watched{Conn: c, closed: make(chan struct{})}
				conns <- w
				return w, err
			}
			res, err := s.send(t.Context(), "GET", "")
			if err == nil {
				_, err = io.ReadAll(res.Body)
				defer res.Body.Close()
			}
			fails(t, err, true, nil)
			if w := <-conns; !closed(w.closed) {
				t.Error("the connection is kept")
			}
		})
	}
}

// A backend that dies instead of asking for a body: nobody waits for its word,
// and the body is there for another one.
func TestDeathInsteadOfContinue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := reach(t, "http://a.test")
		s.Dial = func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				http.ReadRequest(bufio.NewReader(there))
				there.Close()
			}()
			return here, nil
		}
		body := newSource(strings.NewReader("hello"))
		req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", interruptible{body})
		must(t, err)
		req.ContentLength = 5
		req.Header.Set("Expect", "100-continue")
		begun := time.Now()
		_, err = s.RoundTrip(req)
		fails(t, err, true, io.EOF)
		if waited := time.Since(begun).Truncate(time.Millisecond); waited != 0 || body.reads.Load() != 0 || !body.closed.Load() {
			t.Errorf("%d reads of the body after %v, closed: %v", body.reads.Load(), waited, body.closed.Load())
		}
	})
}
