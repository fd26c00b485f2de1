package balancer_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// The hooks tell what was written, and whether that went well.
func TestTraceOfWriting(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) { answers(c, "HTTP/1.1 204 No Content\r\n\r\n") }))
	for _, tt := range []struct {
		body io.Reader
		want string
		fail bool
	}{
		{nil, "Host X Y", false},
		{strings.NewReader("hello"), "Content-Length Host X Y", false},
		{io.LimitReader(strings.NewReader("hello"), 5), "Host Transfer-Encoding X Y", false},
		{failing{errors.New("gone")}, "Host Transfer-Encoding X Y", true},
	} {
		var fields []string
		var infos []httptrace.WroteRequestInfo
		done := make(chan struct{})
		ctx := httptrace.WithClientTrace(balancer.WithBackend(t.Context(), s.Backend), &httptrace.ClientTrace{
			WroteHeaderField: func(name string, values []string) {
				if name == "X" && !slices.Equal(values, []string{"a", "b"}) || name == "Host" && values[0] != "x" {
					t.Errorf("%s: %q", name, values)
				}
				fields = append(fields, name)
			},
			WroteRequest: func(i httptrace.WroteRequestInfo) {
				infos = append(infos, i)
				close(done)
			},
		})
		req, err := http.NewRequestWithContext(ctx, "POST", "http://x/", tt.body)
		must(t, err)
		req.Header = http.Header{"X": {"a", "b"}, "Y": {"c"}, "User-Agent": {""}}
		if tt.body == nil {
			req.Method = "GET"
		}
		res, err := s.RoundTrip(req)
		if err == nil {
			res.Body.Close()
		}
		<-done
		slices.Sort(fields)
		if got := strings.Join(fields, " "); got != tt.want || len(infos) != 1 || infos[0].Err != nil != tt.fail || err != nil != tt.fail {
			t.Errorf("fields %q, want %q; infos %v, error %v, want one: %v", got, tt.want, infos, err, tt.fail)
		}
	}
}

// A backend that hangs within the TLS handshake, or its dial, isn't waited for.
func TestDialTimeout(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"http", "https"} {
		synctest.Test(t, func(t *testing.T) {
			s := reach(t, scheme+"://a.test")
			s.DialTimeout = 3 * time.Second
			s.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				if scheme == "http" {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				here, there := net.Pipe()
				go io.Copy(io.Discard, there)
				return here, nil
			}
			begun := time.Now()
			body := newSource(strings.NewReader("hello"))
			req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", body)
			must(t, err)
			_, err = s.RoundTrip(req)
			fails(t, err, false, nil)
			if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != s.DialTimeout || !body.closed.Load() {
				t.Errorf("%s: %v after %v, body closed: %v", scheme, err, time.Since(begun), body.closed.Load())
			}
		})
	}
}

// Informational answers, however many and for whatever request, leave a
// connection as good as new.
func TestInformationBeforeEachAnswer(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) {
		answers(c, strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 5)+"HTTP/1.1 102 Processing\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	}))
	for _, body := range []string{"", "hello", "hello", ""} {
		res, err := s.send(t.Context(), "POST", body)
		if got := read(t, res, err); got != "hello" || res.Header.Get("X") != "" {
			t.Errorf("%q, header %v", got, res.Header)
		}
	}
	if n := s.dials.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// A backend that refuses a body before it asked for it: the answer is read, and
// the connection with the rest of a request on it isn't used again.
func TestExpectAndRefusal(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"kept":   "HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops",
		"closed": "HTTP/1.1 417 No\r\nConnection: close\r\nContent-Length: 4\r\n\r\noops",
		"bare":   "HTTP/1.0 200 OK\r\n\r\noops",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := reach(t, raw(t, func(c net.Conn) {
				r := bufio.NewReader(c)
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				io.WriteString(c, answer)
				if name != "bare" {
					if n, err := io.Copy(io.Discard, r); n > 0 || err != nil {
						t.Errorf("%d bytes more, %v", n, err)
					}
				}
			}))
			for range 2 {
				body := newSource(strings.NewReader("hello"))
				req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", interruptible{body})
				must(t, err)
				req.ContentLength = 5
				req.Header.Set("Expect", "100-Continue")
				res, err := s.RoundTrip(req)
				if got := read(t, res, err); got != "oops" || body.reads.Load() != 0 || !body.closed.Load() {
					t.Errorf("answer %q; %d reads of the body, closed: %v", got, body.reads.Load(), body.closed.Load())
				}
			}
		})
	}
}

// The end of an answer comes with its last bytes when it is known by then, and
// the connection is free at once: nobody has to read on.
func TestEndWithTheLastBytes(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := reach(t, raw(t, func(c net.Conn) { answers(c, answer) }))
			for range 3 {
				res, err := s.send(t.Context(), "GET", "")
				must(t, err)
				if n, err := res.Body.Read(make([]byte, 100)); n != 5 || err != io.EOF {
					t.Errorf("read %d, %v", n, err)
				}
				if n, err := res.Body.Read(make([]byte, 100)); n != 0 || err != io.EOF {
					t.Errorf("reading on: %d, %v", n, err)
				}
			}
			if n := s.dials.Load(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
		})
	}
}

// A body that can't be had again costs the repetition: the first error counts.
func TestRepeatWithoutTheBody(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		http.ReadRequest(r)
		io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		if req, err := http.ReadRequest(r); err == nil { // and hang up on it
			io.Copy(io.Discard, req.Body)
		}
	}))
	res, err := s.send(t.Context(), "GET", "")
	read(t, res, err)
	gone := errors.New("the file is gone")
	req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "GET", "http://x/", strings.NewReader("hello"))
	must(t, err)
	body := newSource(req.Body)
	req.Body = body
	req.GetBody = func() (io.ReadCloser, error) { return nil, gone }
	_, err = s.RoundTrip(req)
	fails(t, err, true, nil)
	if errors.Is(err, gone) || !body.closed.Load() || s.dials.Load() != 1 {
		t.Errorf("%v after %d dials, body closed: %v", err, s.dials.Load(), body.closed.Load())
	}
}

// Trailers get their values, and some their names, while the body is read: they
// must not bring fields of their own.
func TestTrailersThatComeLate(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	s := reach(t, raw(t, func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err == nil {
			io.Copy(io.Discard, req.Body)
			got <- req.Trailer
			io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		}
		close(got)
	}))
	req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", nil)
	must(t, err)
	req.Trailer = http.Header{"X": nil, "Y": nil}
	req.Body = io.NopCloser(io.MultiReader(strings.NewReader("hello"), late(func() {
		req.Trailer["X"] = []string{"a\r\nEvil: b", "a\n\r\n0\r\n\r\n"}
		req.Trailer["Y"] = []string{"fine"}
		req.Trailer["Evil: b\r\nEvil"] = []string{"c"}
	})))
	req.ContentLength = -1
	res, err := s.RoundTrip(req)
	if err == nil {
		res.Body.Close()
	}
	// Either the request fails, or what arrives is harmless.
	if trailer := <-got; trailer["Evil"] != nil || len(trailer) > 2 || err == nil && trailer.Get("Y") != "fine" {
		t.Errorf("the backend got %q, %v", trailer, err)
	}
}
