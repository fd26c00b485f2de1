package balancer_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// answers serves each request on c with these bytes, until the client goes.
func answers(c net.Conn, answer string) {
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		io.WriteString(c, answer)
		if strings.Contains(answer, "bare") {
			return
		}
	}
}

func TestReuse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, method, answer, body string
		kept                       bool
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", true},
		{"length of 0", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", true},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello", true},
		{"trailer", "GET", "HTTP/1.1 200 OK\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n", "hello", true},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", "", true},
		{"304 with a length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "", true},
		{"304 chunked", "GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", "", true},
		{"HEAD with a length", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "", true},
		{"HEAD chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", true},
		{"103 first", "GET", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", true},
		{"HTTP/1.0 that is kept", "GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", "hello", true},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", false},
		{"close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", "hello", false},
		{"no length", "GET", "HTTP/1.1 200 OK\r\n\r\nbare", "bare", false},
		{"more than an answer", "GET", "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "", false},
		{"body on a HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "", false},
		{"not a switch", "GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "", false},
		{"Keep-Alive: timeout=0", "GET", "HTTP/1.1 204 No Content\r\nKeep-Alive: timeout=0\r\n\r\n", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := reach(t, raw(t, func(c net.Conn) { answers(c, tt.answer) }))
			for range 2 {
				res, err := s.send(t.Context(), tt.method, "")
				if got := read(t, res, err); got != tt.body {
					t.Errorf("got %q, want %q", got, tt.body)
				}
				if want := res.Trailer.Get("X"); tt.name == "trailer" && want != "y" {
					t.Errorf("trailer %v", res.Trailer)
				}
			}
			if n := s.dials.Load(); n == 1 != tt.kept {
				t.Errorf("%d connections for two requests, want that the first is kept: %v", n, tt.kept)
			}
		})
	}
}

// What the caller does to a request or to its answer.
func TestReuseByTheCaller(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	for _, tt := range []struct {
		name  string
		after func(s *site, res *http.Response, cancel func())
		kept  bool
	}{
		{"read, never closed", func(_ *site, res *http.Response, _ func()) { io.ReadAll(res.Body) }, true},
		{"canceled behind the end", func(_ *site, res *http.Response, cancel func()) { io.ReadAll(res.Body); cancel() }, true},
		{"canceled before the end", func(_ *site, res *http.Response, cancel func()) { cancel(); io.ReadAll(res.Body) }, false},
		{"closed unread", func(_ *site, res *http.Response, _ func()) { res.Body.Close() }, false},
		{"closed twice", func(_ *site, res *http.Response, _ func()) { io.ReadAll(res.Body); res.Body.Close(); res.Body.Close() }, true},
		{"idle ones closed", func(s *site, res *http.Response, _ func()) { io.ReadAll(res.Body); s.CloseIdleConnections() }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := reach(t, raw(t, func(c net.Conn) { answers(c, answer) }))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			res, err := s.send(ctx, "GET", "")
			must(t, err)
			tt.after(s, res, cancel)
			res, err = s.send(t.Context(), "GET", "")
			read(t, res, err)
			if n := s.dials.Load(); n == 1 != tt.kept {
				t.Errorf("%d connections for two requests, want that the first is kept: %v", n, tt.kept)
			}
		})
	}
	t.Run("Close", func(t *testing.T) {
		t.Parallel()
		s := reach(t, raw(t, func(c net.Conn) { answers(c, answer) }))
		for range 2 {
			req, _ := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "GET", "http://x/", nil)
			req.Close = true
			res, err := s.RoundTrip(req)
			read(t, res, err)
		}
		if n := s.dials.Load(); n != 2 {
			t.Errorf("%d connections for two requests that want theirs closed", n)
		}
	})
}

// A watched is a connection whose closing is noticed, and which the kernel can't
// be asked about.
type watched struct {
	net.Conn
	closed chan struct{}
	once   sync.Once
}

func (w *watched) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}

// A connection that a context's end has closed isn't kept, though the whole
// answer was here before.
func TestReuseAfterCancellation(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) { answers(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") }))
	dial, conns := s.Dial, make(chan *watched, 2)
	s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		w := &watched{Conn: c, closed: make(chan struct{})}
		conns <- w
		return w, err
	}
	ctx, cancel := context.WithCancel(t.Context())
	res, err := s.send(ctx, "GET", "")
	must(t, err)
	cancel()
	if got, err := io.ReadAll(res.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("read %q and %v behind the cancellation", got, err)
	}
	<-(<-conns).closed
	res, err = s.send(t.Context(), "POST", "hello") // which isn't repeated
	read(t, res, err)
}

// A corked is a connection that holds what is written until its end is.
type corked struct {
	net.Conn
	out bytes.Buffer
	on  bool
}

func (c *corked) Write(p []byte) (int, error) {
	if c.on {
		return c.out.Write(p)
	}
	return c.Conn.Write(p)
}

// An answer that nobody asked for may hide within TLS.
func TestReuseOverTLS(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	ca := httptest.NewTLSServer(nil)
	ca.Close()
	for name, unasked := range map[string]string{"as asked": "", "an answer too many": strings.Replace(answer, "hello", "evil!", 1)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := raw(t, func(c net.Conn) {
				cork := &corked{Conn: c}
				secured := tls.Server(cork, ca.TLS)
				defer secured.Close()
				r := bufio.NewReader(secured)
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					cork.on = true
					io.WriteString(secured, answer)
					if unasked != "" {
						io.WriteString(secured, unasked)
					}
					cork.on = false
					cork.out.WriteTo(c)
				}
			})
			s := reach(t, strings.Replace(url, "http", "https", 1))
			s.TLS = &tls.Config{InsecureSkipVerify: true}
			for range 2 {
				res, err := s.send(t.Context(), "GET", "")
				if got := read(t, res, err); got != "hello" {
					t.Errorf("got %q", got)
				}
			}
			if n := s.dials.Load(); n == 1 != (unasked == "") {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// A body may be closed while it is read.
func TestCloseWhileReading(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) {
		answers(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
	}))
	res, err := s.send(t.Context(), "GET", "")
	must(t, err)
	io.ReadFull(res.Body, make([]byte, 5))
	ended := make(chan error)
	go func() {
		_, err := res.Body.Read(make([]byte, 5))
		ended <- err
	}()
	res.Body.Close()
	if err := <-ended; err == nil || err == io.EOF {
		t.Errorf("Read says %v", err)
	}
	if _, err := res.Body.Read(make([]byte, 5)); err != http.ErrBodyReadAfterClose {
		t.Errorf("reading on: %v", err)
	}
}

// Idle connections are closed in time, those that the backend will close before that.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		keepAlive string
		idle      time.Duration // the Transport's
		want      time.Duration
	}{
		{"", 0, 4 * time.Second},
		{"", time.Minute, time.Minute},
		{"timeout=5", 0, 4 * time.Second},
		{"timeout=5", time.Minute, 4 * time.Second},
		{"max=100, Timeout = 3", 0, 2 * time.Second},
		{"timeout=1", 0, time.Second / 2},
		{"timeout=72", 0, 4 * time.Second},
		{"timeout=-1", 0, 4 * time.Second},
		{"timeout=soon", 0, 4 * time.Second},
	} {
		t.Run(fmt.Sprint(tt.keepAlive, tt.idle), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := reach(t, "http://a.test")
				s.IdleTimeout = tt.idle
				ends := make(chan time.Time, 1)
				s.Dial = func(context.Context, string, string) (net.Conn, error) {
					here, there := net.Pipe()
					go func() {
						answers(there, "HTTP/1.1 200 OK\r\nKeep-Alive: "+tt.keepAlive+"\r\nContent-Length: 5\r\n\r\nhello")
						ends <- time.Now()
					}()
					return here, nil
				}
				for range 2 {
					res, err := s.send(t.Context(), "GET", "")
					read(t, res, err)
					time.Sleep(tt.want / 2) // of the bubble
				}
				begun := time.Now().Add(-tt.want / 2)
				if got := (<-ends).Sub(begun); got < tt.want || got > tt.want*3/2 {
					t.Errorf("closed after %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestMaxIdle(t *testing.T) {
	t.Parallel()
	const n, most = 10, 3
	var arrived sync.WaitGroup
	arrived.Add(n)
	closed := make(chan struct{}, n)
	s := reach(t, raw(t, func(c net.Conn) {
		defer func() { closed <- struct{}{} }()
		r := bufio.NewReader(c)
		http.ReadRequest(r)
		arrived.Done()
		arrived.Wait()
		io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		r.ReadByte()
	}))
	s.MaxIdle, s.IdleTimeout = most, time.Hour
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			res, err := s.send(t.Context(), "GET", "")
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
		})
	}
	all.Wait()
	for range n - most {
		<-closed
	}
	select {
	case <-closed:
		t.Errorf("less than %d are kept", most)
	default:
	}
	s.CloseIdleConnections()
	for range most {
		<-closed
	}
}

// Many requests at once over a backend that closes connections as it likes: each
// gets its own answer.
func TestSurpriseCloses(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rand.IntN(4) == 0 {
			w.Header().Set("Connection", "close")
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, r.URL.Query().Get("n"), string(body))
		if rand.IntN(10) == 0 {
			panic(http.ErrAbortHandler)
		}
	}))
	server.Config.ErrorLog = nil
	t.Cleanup(server.Close)
	s := reach(t, server.URL)
	var all sync.WaitGroup
	for k := range 8 {
		all.Go(func() {
			for i := range 100 {
				want := fmt.Sprint(k, "-", i)
				ctx := balancer.WithBackend(t.Context(), s.Backend)
				var body io.Reader
				method, suffix := "GET", ""
				if i%2 == 0 {
					method, suffix = "POST", "+body"
					body = strings.NewReader(suffix)
				}
				req, _ := http.NewRequestWithContext(ctx, method, "http://x/?n="+want, body)
				res, err := s.RoundTrip(req)
				if err != nil {
					if !errors.As(err, new(*balancer.Error)) {
						t.Error(err)
					}
					continue
				}
				if got, err := io.ReadAll(res.Body); err == nil && string(got) != want+suffix {
					t.Errorf("got %q, want %q", got, want+suffix)
				}
				res.Body.Close()
			}
		})
	}
	all.Wait()
}

// An answer that was read to its end stays at its end, whatever becomes of the
// request's context and of the connection.
func TestEndOfAnAnswerLasts(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
	} {
		s := reach(t, raw(t, says(answer)))
		ctx, cancel := context.WithCancel(t.Context())
		res, err := s.send(ctx, "GET", "")
		must(t, err)
		defer res.Body.Close()
		_, err = io.ReadAll(res.Body)
		must(t, err)
		cancel()
		if n, err := res.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%q: then %d bytes and %v", answer, n, err)
		}
	}
}
