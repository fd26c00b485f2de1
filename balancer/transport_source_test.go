package balancer_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/limpet-go/limpet/balancer"
)

// idling is a reader that brings nothing now and then.
type idling struct {
	r io.Reader
	n int
}

func (i *idling) Read(p []byte) (int, error) {
	if i.n++; i.n%3 != 0 {
		return 0, nil
	}
	return i.r.Read(p)
}

// both ends with data and an error in one Read.
type both struct {
	data string
	err  error
}

func (b both) Read(p []byte) (int, error) { return copy(p, b.data), b.err }

// Whatever way a body has to be read, the backend gets the whole of it, or
// nothing that looks whole.
func TestSources(t *testing.T) {
	t.Parallel()
	broken := errors.New("client is gone")
	hello := func() io.Reader { return strings.NewReader("hello") }
	for _, tt := range []struct {
		name   string
		body   io.Reader
		length int64
		want   error
	}{
		{"byte by byte", iotest.OneByteReader(hello()), 5, nil},
		{"the end with the data", iotest.DataErrReader(hello()), 5, nil},
		{"the end with the data, chunked", iotest.DataErrReader(hello()), -1, nil},
		{"nothing now and then", &idling{r: hello()}, 5, nil},
		{"nothing now and then, chunked", &idling{r: hello()}, -1, nil},
		{"an error with the data", both{"hell", broken}, 5, broken},
		{"an error with the last data", both{"hello", broken}, 5, broken},
		{"an error with the data, chunked", both{"hello", broken}, -1, broken},
		{"an error behind the data, chunked", io.MultiReader(hello(), failing{broken}), -1, broken},
		{"an error at once, chunked", failing{broken}, -1, broken},
		{"unexpected end, chunked", io.MultiReader(hello(), failing{io.ErrUnexpectedEOF}), -1, io.ErrUnexpectedEOF},
		{"too short", hello(), 6, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := make(chan string, 1)
			s := reach(t, raw(t, func(c net.Conn) {
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					got <- "no request"
					return
				}
				body, err := io.ReadAll(req.Body)
				if err != nil {
					got <- "broken"
					return
				}
				got <- string(body)
				io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
			}))
			body := newSource(tt.body)
			req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", body)
			must(t, err)
			req.ContentLength = tt.length
			res, err := s.RoundTrip(req)
			if tt.want == nil && tt.length <= 5 {
				read(t, res, err)
				if got := <-got; got != "hello" {
					t.Errorf("the backend got %q", got)
				}
			} else if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got error %v, want %v", err, tt.want)
			} else if s.dials.Load() == 1 {
				// All that its length promised may have come before the error.
				if got := <-got; got == "hello" && tt.length != 5 {
					t.Error("the backend got a body that looks whole")
				}
			}
			if !body.closed.Load() {
				t.Error("the body is left open")
			}
		})
	}
}

// A limited is a connection that fails once it has taken so many bytes.
type limited struct {
	*watched
	left int
	err  error
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) <= l.left {
		l.left -= len(p)
		return l.Conn.Write(p)
	}
	n, _ := l.Conn.Write(p[:l.left])
	l.left = 0
	return n, l.err
}

// Wherever the writing fails: the error is that of the connection, says whether
// anything was sent, and nothing is left behind.
func TestFailingWrites(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		left []int
	}{
		{"", []int{0, 1, 20, 60}},
		{"hello", []int{0, 1, 20, 60, 100}},
		{strings.Repeat("hello", 10_000), []int{0, 1, 100, 130, 5000, 40_000}},
	} {
		for _, left := range tt.left {
			for _, fault := range []error{syscall.ENOBUFS, syscall.EPIPE} {
				want := fault
				if fault == syscall.EPIPE && left > 0 {
					want = io.EOF // what the backend had said before was to be read
				}
				s := reach(t, raw(t, func(c net.Conn) {
					io.CopyN(io.Discard, c, int64(left))
					if want != io.EOF {
						io.Copy(io.Discard, c)
					}
				}))
				dial, conns := s.Dial, make(chan *watched, 1)
				s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					c, err := dial(ctx, network, addr)
					w := &watched{Conn: c, closed: make(chan struct{})}
					conns <- w
					return &limited{watched: w, left: left, err: fault}, err
				}
				req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", nil)
				must(t, err)
				var body *source
				if tt.text != "" {
					body = newSource(strings.NewReader(tt.text))
					req.Body, req.ContentLength = body, -1
				}
				_, err = s.RoundTrip(req)
				fails(t, err, left > 0, want)
				if body != nil && !body.closed.Load() {
					t.Error("the body is left open")
				}
				<-(<-conns).closed
			}
		}
	}
}

// RoundTrip leaves a request as it was, so that it may be sent again.
func TestRequestIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) { answers(c, "HTTP/1.1 204 No Content\r\n\r\n") }))
	for name, body := range map[string]io.ReadCloser{"none": nil, "NoBody": http.NoBody, "a body": io.NopCloser(strings.NewReader("hello"))} {
		req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://user:secret@x/a?b", nil)
		must(t, err)
		req.Body, req.Host = body, ""
		req.Header = http.Header{"X": {"y"}, "Content-Length": {"7"}, "Connection": {"x"}}
		if name == "a body" {
			req.Trailer = http.Header{"X": {"y"}}
		}
		shallow, deep := *req, req.Clone(req.Context())
		for range 2 {
			res, err := s.RoundTrip(req)
			read(t, res, err)
			if res.Request != req {
				t.Errorf("%s: the answer's request isn't the one that was sent", name)
			}
			if !reflect.DeepEqual(*req, shallow) || !reflect.DeepEqual(req.Header, deep.Header) || req.URL.String() != deep.URL.String() || !reflect.DeepEqual(req.Trailer, deep.Trailer) {
				t.Errorf("%s: the request is now %+v", name, req)
			}
			if name == "a body" {
				break
			}
		}
	}
}
