package balancer_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A source is the body of a request: what r has, until it is interrupted.
type source struct {
	r           io.Reader
	interrupted chan struct{}
	began       chan struct{} // its first Read
	mu          sync.Mutex    // locked while it is read
	reads       atomic.Int32
	reading     atomic.Int32
	closed      atomic.Bool
}

func newSource(r io.Reader) *source {
	return &source{r: r, interrupted: make(chan struct{}), began: make(chan struct{})}
}

// errEnough is what a source says that was interrupted.
var errEnough = errors.New("enough")

func (s *source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.interrupted:
		return 0, errEnough
	default:
	}
	if s.reads.Add(1) == 1 {
		close(s.began)
	}
	s.reading.Add(1)
	defer s.reading.Add(-1)
	n, err := s.r.Read(p)
	if err == errEnough {
		<-s.interrupted
	}
	return n, err
}

func (s *source) Close() error {
	s.closed.Store(true)
	return nil
}

// An interruptible is a source that ends its Read when it is interrupted.
type interruptible struct{ *source }

func (s interruptible) Interrupt() {
	select {
	case <-s.interrupted:
	default:
		close(s.interrupted)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
}

// failing is a reader that ends with an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestInvalidRequests(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*http.Request){
		"field name":             func(r *http.Request) { r.Header["X: y\r\nZ"] = []string{"a"} },
		"empty field name":       func(r *http.Request) { r.Header[""] = []string{"a"} },
		"field name with space":  func(r *http.Request) { r.Header["Transfer-Encoding "] = []string{"chunked"} },
		"field value":            func(r *http.Request) { r.Header["X"] = []string{"fine", "a\r\nSmuggled: b"} },
		"NUL in a value":         func(r *http.Request) { r.Header["X"] = []string{"a\x00"} },
		"trailer name":           func(r *http.Request) { r.Trailer = http.Header{"A\r\nB": nil} },
		"trailer value":          func(r *http.Request) { r.Trailer = http.Header{"A": {"a\nb"}} },
		"trailer that frames":    func(r *http.Request) { r.Trailer, r.ContentLength = http.Header{"Content-Length": {"1"}}, -1 },
		"method":                 func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\nX:" },
		"control in the URL":     func(r *http.Request) { r.URL.Opaque = "/\r\nX: y" },
		"control in the query":   func(r *http.Request) { r.URL.RawQuery = "a\nb" },
		"length without a body":  func(r *http.Request) { r.Body, r.ContentLength = nil, 5 },
		"body shorter than said": func(r *http.Request) { r.ContentLength = 6 },
		"body longer than said":  func(r *http.Request) { r.ContentLength = 4 },
		"no URL":                 func(r *http.Request) { r.URL = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := reach(t, raw(t, func(c net.Conn) {
				if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					if _, err := io.Copy(io.Discard, req.Body); err == nil && name != "body longer than said" {
						t.Errorf("the backend got a whole request: %v", req.Header)
					}
				}
			}))
			body := newSource(strings.NewReader("hello"))
			req, _ := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", body)
			req.ContentLength = 5
			spoil(req)
			closes := req.Body != nil
			var e *balancer.Error
			if _, err := s.RoundTrip(req); !errors.As(err, &e) || !e.Invalid {
				t.Errorf("error %#v, want one that says that the request is invalid", err)
			}
			if closes && !body.closed.Load() {
				t.Error("the body is left open")
			}
		})
	}
}

// What a header says of the framing is not what is sent.
func TestFraming(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, method string
		length       int64
		header       http.Header
		host         string
		want         string // lines, and the body
	}{
		{"length", "POST", 5, nil, "h", "POST /a?b HTTP/1.1|Host: h|Content-Length: 5||hello"},
		{"unknown length", "POST", -1, nil, "h", "POST /a?b HTTP/1.1|Host: h|Transfer-Encoding: chunked||5|hello|0||"},
		{"length not given", "PUT", 0, nil, "h", "PUT /a?b HTTP/1.1|Host: h|Transfer-Encoding: chunked||5|hello|0||"},
		{"GET of unknown length", "GET", -1, nil, "h", "GET /a?b HTTP/1.1|Host: h|Transfer-Encoding: chunked||5|hello|0||"},
		{"the header lies", "POST", 5, http.Header{"Content-Length": {"1"}, "Transfer-Encoding": {"chunked"}, "Host": {"evil"}, "Trailer": {"X"}},
			"h", "POST /a?b HTTP/1.1|Host: h|Content-Length: 5||hello"},
		{"host that isn't one", "POST", 5, nil, "h\r\nX: y", "POST /a?b HTTP/1.1|Host: |Content-Length: 5||hello"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := make(chan string, 1)
			s := reach(t, raw(t, func(c net.Conn) {
				var all strings.Builder
				r := bufio.NewReader(io.TeeReader(c, &all))
				if req, err := http.ReadRequest(r); err == nil {
					io.Copy(io.Discard, req.Body)
				}
				got <- strings.ReplaceAll(all.String(), "\r\n", "|")
				io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
			}))
			req := (&http.Request{
				Method: tt.method, URL: &url.URL{Path: "/a", RawQuery: "b"}, Host: tt.host, ContentLength: tt.length,
				Header: http.Header{"User-Agent": {""}}, Body: newSource(strings.NewReader("hello")),
			}).WithContext(balancer.WithBackend(t.Context(), s.Backend))
			for name, values := range tt.header {
				req.Header[name] = values
			}
			res, err := s.RoundTrip(req)
			read(t, res, err)
			if got := <-got; got != tt.want {
				t.Errorf("sent %q\nwant %q", got, tt.want)
			}
		})
	}
}

// A small body goes out in one write with its header; a large one arrives whole,
// and its trailers behind it.
func TestUpload(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X", r.Trailer.Get("X"))
		w.Write(body)
	}))
	t.Cleanup(server.Close)
	s := reach(t, server.URL)
	large := strings.Repeat("0123456789", 300_000)
	for _, body := range []string{"x", large} {
		for range 3 {
			req, _ := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", newSource(strings.NewReader(body)))
			req.Trailer = http.Header{"X": {"y"}}
			res, err := s.RoundTrip(req)
			if got := read(t, res, err); got != body || res.Header.Get("X") != "y" {
				t.Errorf("echo of %d bytes of %d, trailer %q", len(got), len(body), res.Header.Get("X"))
			}
		}
	}
	if n := s.dials.Load(); n != 1 {
		t.Errorf("%d connections for requests one after the other, want 1", n)
	}
}

// The header, and each piece of a body, go out when they are there: a backend may
// want to answer before there is more.
func TestSlowUpload(t *testing.T) {
	t.Parallel()
	for name, length := range map[string]int64{"length": 10, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.NewResponseController(w).EnableFullDuplex()
				w.WriteHeader(200)
				http.NewResponseController(w).Flush()
				b := make([]byte, 5)
				for range 2 {
					io.ReadFull(r.Body, b)
					w.Write(b)
					http.NewResponseController(w).Flush()
				}
				io.Copy(w, r.Body)
			}))
			t.Cleanup(server.Close)
			s := reach(t, server.URL)
			for range 2 {
				pr, pw := io.Pipe()
				req, _ := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", pr)
				req.ContentLength = length
				res, err := s.RoundTrip(req)
				must(t, err)
				got := make([]byte, 5)
				for _, piece := range []string{"hello", "world"} {
					io.WriteString(pw, piece)
					if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != piece {
						t.Errorf("echo %q, %v", got, err)
					}
				}
				pw.Close()
				read(t, res, nil)
			}
			// With a length the answer ends before the pipe says that it has no more.
			if n := s.dials.Load(); n != 1 && length < 0 {
				t.Errorf("%d connections, want 1", n)
			}
		})
	}
}

// A body whose reading fails is at fault itself.
func TestBrokenUpload(t *testing.T) {
	t.Parallel()
	broken := errors.New("client is gone")
	for _, begin := range []string{"", "begin"} {
		s := reach(t, raw(t, func(c net.Conn) { io.Copy(io.Discard, c) }))
		body := newSource(io.MultiReader(strings.NewReader(begin), failing{broken}))
		req, _ := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", body)
		req.ContentLength = 100
		_, err := s.RoundTrip(req)
		if !errors.Is(err, broken) || !body.closed.Load() {
			t.Errorf("with %q: %v, body closed: %v", begin, err, body.closed.Load())
		}
	}
}

// A body that nobody wants any more is interrupted, and read no more once
// RoundTrip has failed or the answer's body is closed.
func TestInterruptedUpload(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer string
		end    func(s *site, cancel func(), c net.Conn)
		err    error
	}{
		{"early answer", "HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nhello", nil, nil},
		{"early answer without a body", "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", nil, nil},
		{"client is gone", "", func(_ *site, cancel func(), _ net.Conn) { cancel() }, context.Canceled},
		{"backend is lost", "", func(s *site, _ func(), _ net.Conn) { s.Off("a") }, balancer.ErrLost},
		{"backend dies", "", func(_ *site, _ func(), c net.Conn) { c.Close() }, io.EOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conns := make(chan net.Conn, 2)
			s := reach(t, raw(t, func(c net.Conn) {
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				io.ReadFull(req.Body, make([]byte, 5))
				io.WriteString(c, tt.answer)
				conns <- c
				io.Copy(io.Discard, c)
			}))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			body := newSource(io.MultiReader(strings.NewReader("hello"), failing{errEnough}))
			req, _ := http.NewRequestWithContext(balancer.WithBackend(ctx, s.Backend), "POST", "http://x/", interruptible{body})
			req.ContentLength = 100
			if tt.end != nil {
				go func() { tt.end(s, cancel, <-conns) }()
			}
			res, err := s.RoundTrip(req)
			if tt.err != nil {
				fails(t, err, true, tt.err)
			} else {
				must(t, err)
				if _, err := io.ReadAll(res.Body); err != nil {
					t.Error(err)
				}
				if other, err := s.send(t.Context(), "GET", ""); err == nil {
					other.Body.Close()
				}
				if s.dials.Load() != 2 {
					t.Error("a connection with half a request on it was used again")
				}
				res.Body.Close()
			}
			if n := body.reading.Load(); n != 0 || !body.closed.Load() {
				t.Errorf("%d Reads are under way, closed: %v", n, body.closed.Load())
			}
		})
	}
}

func TestExpect(t *testing.T) {
	t.Parallel()
	const final = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for _, tt := range []struct {
		name  string
		first string // what the backend says to the header
		sent  bool   // the body
		waits time.Duration
	}{
		{"asks", "HTTP/1.1 100 Continue\r\n\r\n", true, 0},
		{"asks after a hint", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", true, 0},
		{"refuses", final, false, 0},
		{"knows nothing of it", "", true, 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := reach(t, "http://a.test")
				body := newSource(strings.NewReader("hello"))
				s.Dial = func(context.Context, string, string) (net.Conn, error) {
					here, there := net.Pipe()
					go func() {
						defer there.Close()
						r := bufio.NewReader(there)
						req, err := http.ReadRequest(r)
						if err != nil {
							return
						}
						synctest.Wait()
						if body.reads.Load() != 0 {
							t.Error("the body was read before it was asked for")
						}
						io.WriteString(there, tt.first)
						if got, err := io.ReadAll(req.Body); tt.sent != (string(got) == "hello" && err == nil) {
							t.Errorf("the backend got %q, %v", got, err)
						}
						io.WriteString(there, final)
					}()
					return here, nil
				}
				req, _ := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", body)
				req.ContentLength = 5
				req.Header.Set("Expect", "100-continue")
				begun := time.Now()
				res, err := s.RoundTrip(req)
				if got := read(t, res, err); got != "ok" {
					t.Errorf("answer %q", got)
				}
				if waited := time.Since(begun).Truncate(time.Millisecond); waited != tt.waits { // but for a look at the new connection
					t.Errorf("it took %v, want %v", waited, tt.waits)
				}
				synctest.Wait()
				if !body.closed.Load() || tt.sent != (body.reads.Load() > 0) {
					t.Errorf("the body was read %d times, closed: %v", body.reads.Load(), body.closed.Load())
				}
			})
		})
	}
}

// The second request meets a connection that the backend closes on it.
func TestRepeat(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, method, body string
		again              bool // the body can be read again
		header             string
		part               string // of an answer
		repeated           bool
	}{
		{"GET", "GET", "", false, "", "", true},
		{"HEAD", "HEAD", "", false, "", "", true},
		{"POST without a body", "POST", "", false, "", "", false},
		{"POST", "POST", "hello", true, "", "", false},
		{"POST with a key", "POST", "hello", true, "Idempotency-Key", "", true},
		{"POST with a key, body read once", "POST", "hello", false, "Idempotency-Key", "", false},
		{"GET with a body", "GET", "hello", true, "", "", true},
		{"GET whose answer has begun", "GET", "", false, "", "HTTP/1.1 2", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var conns atomic.Int32
			s := reach(t, raw(t, func(c net.Conn) {
				r := bufio.NewReader(c)
				first := conns.Add(1) == 1
				for n := 0; ; n++ {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					body, _ := io.ReadAll(req.Body)
					if first && n == 1 {
						io.WriteString(c, tt.part)
						return
					}
					if n == 0 && !first && string(body) != tt.body {
						t.Errorf("the body was repeated as %q", body)
					}
					io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
				}
			}))
			res, err := s.send(t.Context(), "GET", "")
			read(t, res, err)
			req, _ := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), tt.method, "http://x/", strings.NewReader(tt.body))
			if !tt.again {
				req.GetBody = nil
			}
			if tt.body == "" {
				req.Body = nil
			}
			if tt.header != "" {
				req.Header.Set(tt.header, "1")
			}
			res, err = s.RoundTrip(req)
			if !tt.repeated {
				fails(t, err, true, nil)
				return
			}
			read(t, res, err)
			if res.Request != req || s.dials.Load() != 2 {
				t.Errorf("%d dials; the answer's request is the caller's: %v", s.dials.Load(), res.Request == req)
			}
		})
	}
}
