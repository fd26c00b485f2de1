package balancer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A slow is a body that has "hello" at once and " world" when it is released. It
// doesn't mind that it is read longer than its request lasts.
type slow struct {
	began    chan struct{} // the second Read
	released chan struct{}
	reads    atomic.Int32
	closed   atomic.Bool
	told     atomic.Bool
}

func (s *slow) Read(p []byte) (int, error) {
	switch s.reads.Add(1) {
	case 1:
		return copy(p, "hello"), nil
	case 2:
		close(s.began)
		<-s.released
		return copy(p, " world"), nil
	}
	return 0, io.EOF
}

func (s *slow) Close() error {
	s.closed.Store(true)
	return nil
}

func (s *slow) Interrupt() { s.told.Store(true) }

// Who waits for an answer doesn't wait for a client that sends nothing, and what that
// sends later touches nothing of the Transport's.
func TestLateRead(t *testing.T) {
	t.Parallel()
	for _, length := range []int64{11, -1} {
		for _, end := range []struct {
			name   string
			answer string
			do     func(*site, context.CancelFunc, net.Conn)
			want   error
		}{
			{"backend dies", "", func(_ *site, _ context.CancelFunc, c net.Conn) { c.Close() }, io.EOF},
			{"backend is lost", "", func(s *site, _ context.CancelFunc, _ net.Conn) { s.Off("a") }, balancer.ErrLost},
			{"client is gone", "", func(_ *site, cancel context.CancelFunc, _ net.Conn) { cancel() }, context.Canceled},
			{"early answer", "HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nhello", nil, nil},
			{"early answer without a body", "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", nil, nil},
		} {
			t.Run(fmt.Sprint(end.name, ", length ", length), func(t *testing.T) {
				t.Parallel()
				conns := make(chan net.Conn, 1)
				s := reach(t, raw(t, func(c net.Conn) {
					req, err := http.ReadRequest(bufio.NewReader(c))
					if err != nil {
						return
					}
					if req.URL.Path != "/slow" {
						io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
						return
					}
					io.ReadFull(req.Body, make([]byte, 5))
					io.WriteString(c, end.answer)
					conns <- c
					if rest, _ := io.ReadAll(req.Body); len(rest) > 0 {
						t.Errorf("the backend got %q", rest)
					}
				}))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				body := &slow{began: make(chan struct{}), released: make(chan struct{})}
				req, err := http.NewRequestWithContext(balancer.WithBackend(ctx, s.Backend), "POST", "http://x/slow", body)
				must(t, err)
				req.ContentLength = length
				if end.do != nil {
					go func() {
						<-body.began
						end.do(s, cancel, <-conns)
					}()
				}
				res, err := s.RoundTrip(req)
				if end.want != nil {
					fails(t, err, true, end.want)
				} else {
					<-body.began
					read(t, res, err)
				}
				if !body.told.Load() || !body.closed.Load() || body.reads.Load() != 2 {
					t.Errorf("interrupted: %v, closed: %v, %d reads", body.told.Load(), body.closed.Load(), body.reads.Load())
				}
				close(body.released)
				if end.name != "backend is lost" {
					res, err = s.send(t.Context(), "GET", "")
					read(t, res, err)
				}
				if n := body.reads.Load(); n != 2 {
					t.Errorf("%d reads", n)
				}
			})
		}
	}
}

// Who is told of a 100 is told before the body is read, within five seconds of the
// header whatever else the backend says, and of everything that it says.
func TestContinueIsToldFirst(t *testing.T) {
	t.Parallel()
	const hint, goOn = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n"
	type word struct {
		after time.Duration
		what  string
	}
	for _, tt := range []struct {
		name  string
		words []word
		told  []int
		after time.Duration // which the body is read
	}{
		{"100", []word{{time.Second, goOn}}, []int{100}, time.Second},
		{"103, 100", []word{{time.Second, hint + goOn}}, []int{103, 100}, time.Second},
		{"103, later 100", []word{{time.Second, hint}, {time.Second, goOn}}, []int{103, 100}, 2 * time.Second},
		{"nothing", nil, []int{100}, 5 * time.Second},
		{"103, then nothing", []word{{4 * time.Second, hint}}, []int{103, 100}, 5 * time.Second},
		{"103 in pieces, then nothing", []word{{time.Second, hint[:20]}, {time.Second, hint[20:]}}, []int{103, 100}, 5 * time.Second},
		{"103 in pieces, too late", []word{{4 * time.Second, hint[:20]}, {2 * time.Second, hint[20:]}}, []int{103, 100}, 6 * time.Second},
		{"100 too late", []word{{6 * time.Second, goOn}}, []int{100, 100}, 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := reach(t, "http://a.test")
				s.Dial = func(context.Context, string, string) (net.Conn, error) {
					here, there := net.Pipe()
					go func() {
						defer there.Close()
						req, err := http.ReadRequest(bufio.NewReader(there))
						if err != nil {
							return
						}
						go func() {
							for _, word := range tt.words {
								time.Sleep(word.after)
								io.WriteString(there, word.what)
							}
						}()
						if got, err := io.ReadAll(req.Body); string(got) != "hello" || err != nil {
							t.Errorf("the backend got %q, %v", got, err)
						}
						time.Sleep(10 * time.Second)
						io.WriteString(there, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
					}()
					return here, nil
				}
				body := newSource(strings.NewReader("hello"))
				begun := time.Now()
				after := make(chan time.Duration, 1)
				go func() {
					<-body.began
					after <- time.Since(begun)
				}()
				req, err := http.NewRequestWithContext(t.Context(), "POST", "http://x/", body)
				must(t, err)
				req.ContentLength = 5
				req.Header.Set("Expect", "100-continue")
				var told []int
				res, err := s.RoundTripTo(s.Backend, req, func(code int, h textproto.MIMEHeader) error {
					synctest.Wait()
					if n := body.reads.Load(); code == http.StatusContinue && !slices.Contains(told, code) && n != 0 {
						t.Errorf("%d reads of the body before the 100 was told", n)
					}
					if code == http.StatusEarlyHints && h.Get("Link") != "x" {
						t.Errorf("103 with %v", h)
					}
					told = append(told, code)
					return nil
				})
				read(t, res, err)
				if after := (<-after).Truncate(time.Millisecond); !slices.Equal(told, tt.told) || after != tt.after {
					t.Errorf("told %v, want %v; the body was read after %v, want %v", told, tt.told, after, tt.after)
				}
			})
		})
	}
}

// An Interrupter that has no more use for its body ends the request, and not the answer.
func TestBodyEndsTheRequest(t *testing.T) {
	t.Parallel()
	for _, length := range []int64{100, -1} {
		answered := make(chan struct{})
		s := reach(t, raw(t, func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
			<-answered
			io.WriteString(c, "world")
		}))
		ended := make(chan struct{})
		body := &withdrawing{closing{io.MultiReader(strings.NewReader("x"), late(func() { <-ended }), failing{http.ErrBodyReadAfterClose}), make(chan struct{})}}
		req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", body)
		must(t, err)
		req.ContentLength = length
		res, err := s.RoundTrip(req)
		must(t, err)
		close(ended)
		<-body.closed // by the upload, in the end
		close(answered)
		if got := read(t, res, nil); got != "helloworld" {
			t.Errorf("%q", got)
		}
		res, err = s.send(t.Context(), "GET", "")
		if err == nil {
			res.Body.Close()
		}
		if n := s.dials.Load(); n != 2 {
			t.Errorf("%d dials, want 2: half a request is on the first connection", n)
		}
	}
}

// A withdrawing is an Interrupter that has no Read to interrupt.
type withdrawing struct{ closing }

func (*withdrawing) Interrupt() {}

// Any other body that somebody has closed fails the request, even if the backend would
// wait for the rest of it for ever.
func TestClosedBodyFailsTheRequest(t *testing.T) {
	t.Parallel()
	for _, length := range []int64{100, -1} {
		s := reach(t, raw(t, func(c net.Conn) {
			io.Copy(io.Discard, c)
		}))
		ctx, cancel := context.WithTimeout(balancer.WithBackend(t.Context(), s.Backend), 10*time.Second)
		defer cancel()
		body := io.NopCloser(io.MultiReader(strings.NewReader("x"), failing{http.ErrBodyReadAfterClose}))
		req, err := http.NewRequestWithContext(ctx, "POST", "http://x/", body)
		must(t, err)
		req.ContentLength = length
		res, err := s.RoundTrip(req)
		if err == nil {
			res.Body.Close()
		}
		if !errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Errorf("%v", err)
		}
	}
}

// A closing is a body that tells of its Close.
type closing struct {
	io.Reader
	closed chan struct{}
}

func (c *closing) Close() error {
	close(c.closed)
	return nil
}
