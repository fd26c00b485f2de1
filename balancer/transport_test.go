package balancer_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/limpet-go/limpet/balancer"
)

// A site is one backend in a pool of its own, and a Transport to reach it.
type site struct {
	*balancer.Pool
	*balancer.Backend
	*balancer.Transport
	dials atomic.Int32
}

// reach returns the site of the backend at this URL.
func reach(t *testing.T, url string) *site {
	t.Helper()
	b, err := balancer.NewBackend("a", url, 1)
	must(t, err)
	p, err := balancer.NewPool(nil, b)
	must(t, err)
	s := &site{Pool: p, Backend: b, Transport: &balancer.Transport{}}
	s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		s.dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	t.Cleanup(s.CloseIdleConnections)
	return s
}

// send sends a request to the site's backend.
func (s *site) send(ctx context.Context, method, body string) (*http.Response, error) {
	var r io.Reader
	if body != "" {
		r = io.NopCloser(strings.NewReader(body)) // as of a client: it can't be read twice
	}
	req, err := http.NewRequestWithContext(balancer.WithBackend(ctx, s.Backend), method, "http://site.example/path?a=1;b=2", r)
	if err != nil {
		return nil, err
	}
	req.ContentLength = int64(len(body))
	return s.RoundTrip(req)
}

// fails checks that err is an Error of this kind, within a wrapped one or not.
func fails(t *testing.T, err error, sent bool, within error) {
	t.Helper()
	var e *balancer.Error
	if !errors.As(err, &e) || e.Backend != "a" || e.Sent != sent || within != nil && !errors.Is(err, within) {
		t.Errorf("got error %#v (%v), want one of backend a with Sent %v, and within it %v", err, err, sent, within)
	}
}

func read(t *testing.T, res *http.Response, err error) string {
	t.Helper()
	must(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(t, err)
	return string(b)
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Method+" "+r.Host+" "+r.RequestURI+" "+r.Header.Get("Accept-Encoding")+" "+string(body))
	}))
	t.Cleanup(server.Close)
	s := reach(t, server.URL)
	res, err := s.send(t.Context(), "POST", "hello")
	if got, want := read(t, res, err), "POST site.example /path?a=1;b=2  hello"; got != want {
		t.Errorf("the backend saw %q, want %q", got, want)
	}
	if u := res.Request.URL.Host; u != "site.example" || res.Request.Context().Err() != nil {
		t.Errorf("the answer's request is to %s, its context: %v, want it as it was sent", u, res.Request.Context().Err())
	}
	for range 3 {
		res, err := s.send(t.Context(), "HEAD", "")
		read(t, res, err)
	}
	if n := s.dials.Load(); n != 1 {
		t.Errorf("%d connections for requests one after the other, want 1", n)
	}
	req := httptest.NewRequest("GET", "/", nil)
	if _, err := s.RoundTrip(req); err == nil {
		t.Error("a request that names no backend was sent")
	}
}

func TestRefusedDial(t *testing.T) {
	t.Parallel()
	s := reach(t, "http://127.0.0.1:1")
	_, err := s.send(t.Context(), "POST", "hello")
	fails(t, err, false, syscall.ECONNREFUSED)
	if want := "backend a, request not sent: dial tcp 127.0.0.1:1"; !strings.Contains(err.Error(), want) {
		t.Errorf("the error says %q, want %q in it", err, want)
	}
	_, err = s.Connect(t.Context(), s.Backend)
	fails(t, err, false, syscall.ECONNREFUSED)
}

func TestResetAfterTheRequest(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		c.(*net.TCPConn).SetLinger(0)
	}))
	for _, method := range []string{"GET", "POST"} {
		_, err := s.send(t.Context(), method, "")
		fails(t, err, true, nil)
	}
	if n := s.dials.Load(); n != 2 {
		t.Errorf("%d dials for two requests: a fresh connection that fails must not be repeated here", n)
	}
}

func TestLostBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	s := reach(t, raw(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		close(asked)
		io.Copy(io.Discard, c)
	}))
	go func() {
		<-asked
		s.Off("a")
	}()
	_, err := s.send(t.Context(), "POST", "hello")
	fails(t, err, true, balancer.ErrLost)
	// While it is down nothing is sent any more.
	_, err = s.send(t.Context(), "GET", "")
	fails(t, err, false, balancer.ErrLost)
	_, err = s.Connect(t.Context(), s.Backend)
	fails(t, err, false, balancer.ErrLost)
	if n := s.dials.Load(); n != 1 {
		t.Errorf("%d dials, want none while it is down", n-1)
	}
}

func TestLostWithinTheDial(t *testing.T) {
	t.Parallel()
	s := reach(t, "http://a.test")
	s.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		s.Off("a")
		<-ctx.Done()
		return nil, ctx.Err()
	}
	_, err := s.send(t.Context(), "POST", "hello")
	fails(t, err, false, balancer.ErrLost)
}

// tidy is a connection whose end always looks in order.
type tidy struct{ net.Conn }

func (c tidy) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

func TestLostWithinTheAnswer(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"bare":    "HTTP/1.0 200 OK\r\n\r\nhello",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := reach(t, raw(t, func(c net.Conn) {
				http.ReadRequest(bufio.NewReader(c))
				io.WriteString(c, head)
				io.Copy(io.Discard, c)
			}))
			dial := s.Dial
			s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := dial(ctx, network, addr)
				return tidy{c}, err
			}
			res, err := s.send(t.Context(), "GET", "")
			must(t, err)
			defer res.Body.Close()
			if _, err := io.ReadFull(res.Body, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			must(t, s.Remove("a"))
			n, err := res.Body.Read(make([]byte, 5))
			if n != 0 {
				t.Errorf("read %d bytes more", n)
			}
			fails(t, err, true, balancer.ErrLost)
		})
	}
}

func TestDeathWithinTheAnswerIsNoEnd(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")))
	res, err := s.send(t.Context(), "GET", "")
	must(t, err)
	defer res.Body.Close()
	_, err = io.ReadAll(res.Body)
	fails(t, err, true, io.ErrUnexpectedEOF)
}

func TestClientCancels(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 1)
	s := reach(t, raw(t, func(c net.Conn) {
		req, _ := http.ReadRequest(bufio.NewReader(c))
		if req.Method == "GET" {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
		}
		asked <- struct{}{}
		io.Copy(io.Discard, c)
	}))
	gone := errors.New("client is gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-asked
		cancel(gone)
	}()
	_, err := s.send(ctx, "POST", "hello")
	fails(t, err, true, context.Canceled)

	ctx, cancel = context.WithCancelCause(t.Context())
	res, err := s.send(ctx, "GET", "")
	must(t, err)
	defer res.Body.Close()
	cancel(gone)
	if _, err = io.ReadAll(res.Body); err != context.Canceled {
		t.Errorf("reading the answer: %v, want context.Canceled", err)
	}

	ctx, cancel = context.WithCancelCause(t.Context())
	cancel(gone)
	_, err = s.send(ctx, "POST", "hello")
	fails(t, err, false, context.Canceled)
}

// TestStaleConnection: the backend closes a kept connection just when the next
// request comes.
func TestStaleConnection(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, method, body string
		retried            bool
	}{
		{"GET", "GET", "", true},
		{"POST", "POST", "hello", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var conns atomic.Int32
			s := reach(t, raw(t, func(c net.Conn) {
				r := bufio.NewReader(c)
				first := conns.Add(1) == 1
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
					if first { // read the next one and hang up on it
						http.ReadRequest(r)
						return
					}
				}
			}))
			res, err := s.send(t.Context(), "GET", "")
			read(t, res, err)
			res, err = s.send(t.Context(), tt.method, tt.body)
			if !tt.retried {
				fails(t, err, true, nil)
				return
			}
			read(t, res, err)
			if n := s.dials.Load(); n != 2 {
				t.Errorf("%d dials, want 2", n)
			}
		})
	}
}

// brittle is a connection whose second request can't be written.
type brittle struct {
	net.Conn
	writes int
}

func (c *brittle) Write(p []byte) (int, error) {
	if c.writes++; c.writes > 1 {
		return 0, syscall.EPIPE
	}
	return c.Conn.Write(p)
}

func TestStaleConnectionNoticedUnwritten(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	s := reach(t, server.URL)
	s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &brittle{Conn: c}, err
	}
	res, err := s.send(t.Context(), "GET", "")
	read(t, res, err)
	_, err = s.send(t.Context(), "POST", "hello")
	fails(t, err, false, syscall.EPIPE)
}

// A backend that hangs up after each answer without having said so, costs no POST
// that can be sent again.
func TestRudeBackend(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) {
		if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.Copy(io.Discard, req.Body)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		}
	}))
	for range 500 {
		ctx := balancer.WithBackend(t.Context(), s.Backend)
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://x/", strings.NewReader("hello"))
		res, err := s.RoundTrip(req)
		var failed *balancer.Error
		if errors.As(err, &failed) && failed.Sent {
			continue // it hung up while the request was on its way
		}
		read(t, res, err)
	}
}

// The answer of a backend that wants no more of a body isn't lost over that.
func TestRefusedUpload(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) {
		c.Read(make([]byte, 1))
		io.WriteString(c, "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
	}))
	for range 30 {
		ctx := balancer.WithBackend(t.Context(), s.Backend)
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://x/", strings.NewReader(strings.Repeat("x", 5<<20)))
		res, err := s.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 413 {
			t.Errorf("status %d", res.StatusCode)
		}
		res.Body.Close()
	}
}

func TestIdleConnectionsEndWithTheBackend(t *testing.T) {
	t.Parallel()
	for name, down := range map[string]func(*site) error{
		"off":     func(s *site) error { return s.Off("a") },
		"removed": func(s *site) error { return s.Remove("a") },
		"off for the second time": func(s *site) error {
			if err := errors.Join(s.Off("a"), s.Undrain("a")); err != nil {
				return err
			}
			res, err := s.send(context.Background(), "GET", "")
			if err != nil {
				return err
			}
			res.Body.Close()
			return s.Off("a")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan struct{}, 2)
			s := reach(t, raw(t, func(c net.Conn) {
				r := bufio.NewReader(c)
				for {
					if _, err := http.ReadRequest(r); err != nil {
						ended <- struct{}{}
						return
					}
					io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
				}
			}))
			s.IdleTimeout = 1 << 62 // not what ends them here
			res, err := s.send(t.Context(), "GET", "")
			read(t, res, err)
			must(t, down(s))
			for range s.dials.Load() {
				<-ended
			}
		})
	}
}

func TestSwitchingProtocols(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(c, c)
	}))
	upgrade := func() io.ReadWriteCloser {
		req := httptest.NewRequest("GET", "/", nil).WithContext(balancer.WithBackend(t.Context(), s.Backend))
		req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"echo"}}
		res, err := s.RoundTrip(req)
		must(t, err)
		rw, ok := res.Body.(io.ReadWriteCloser)
		if !ok || res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%s with a body of type %T", res.Status, res.Body)
		}
		return rw
	}
	rw := upgrade()
	io.WriteString(rw, "hello")
	must(t, rw.(interface{ CloseWrite() error }).CloseWrite())
	if got, err := io.ReadAll(rw); string(got) != "hello" || err != nil {
		t.Errorf("echo %q, %v", got, err)
	}
	must(t, rw.Close())

	rw = upgrade()
	defer rw.Close()
	must(t, s.Off("a"))
	_, err := rw.Read(make([]byte, 1))
	fails(t, err, true, balancer.ErrLost)
}

func TestReverseProxyUpgrade(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(c, c)
	}))
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxy := &httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}, Transport: s}
		proxy.ServeHTTP(w, r.WithContext(balancer.WithBackend(r.Context(), s.Backend)))
	}))
	t.Cleanup(front.Close)
	c, err := net.Dial("tcp", front.Listener.Addr().String())
	must(t, err)
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res, err)
	}
	io.WriteString(c, "hello")
	got := make([]byte, 5)
	if _, err := io.ReadFull(r, got); string(got) != "hello" {
		t.Errorf("echo %q, %v", got, err)
	}
	must(t, s.Remove("a"))
	if n, err := r.Read(got); err == nil {
		t.Errorf("%d more bytes after the backend is lost", n)
	}
}

func TestCallersTraceIsCalled(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, says("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")))
	var hints []string
	got := false
	res, err := s.send(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { got = true },
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			hints = append(hints, header.Get("Link"))
			return nil
		},
	}), "GET", "")
	read(t, res, err)
	if !got || len(hints) != 1 || hints[0] != "</x>" {
		t.Errorf("the trace saw a connection: %v, and hints %q", got, hints)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Proto)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	s := reach(t, server.URL)
	dialled := make(chan net.Conn, 1)
	s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		dialled <- c
		return c, err
	}
	_, err := s.send(t.Context(), "POST", "hello")
	fails(t, err, false, nil)
	if !errors.As(err, new(*tls.CertificateVerificationError)) {
		t.Errorf("untrusted: %v", err)
	}
	if _, err := (<-dialled).Write(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection that wasn't secured is still open: %v", err)
	}

	s = reach(t, server.URL)
	s.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	s.TLS.RootCAs.AddCert(server.Certificate())
	res, err := s.send(t.Context(), "GET", "")
	if got := read(t, res, err); got != "HTTP/1.1" {
		t.Errorf("the backend was asked over %s", got)
	}
	c, err := s.Connect(t.Context(), s.Backend)
	must(t, err)
	defer c.Close()
	if p := c.(*tls.Conn).ConnectionState().NegotiatedProtocol; p == "h2" {
		t.Errorf("negotiated %q", p)
	}
}
