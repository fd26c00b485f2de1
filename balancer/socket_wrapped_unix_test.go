//go:build unix

package balancer_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// A backend that ends TLS with its answer, unannounced, costs the next request nothing.
func TestTLSEndsWithTheAnswer(t *testing.T) {
	t.Parallel()
	ca := httptest.NewTLSServer(nil)
	ca.Close()
	s := reach(t, strings.Replace(raw(t, func(c net.Conn) {
		secured := tls.Server(c, ca.TLS)
		if req, err := http.ReadRequest(bufio.NewReader(secured)); err == nil {
			io.Copy(io.Discard, req.Body)
			io.WriteString(secured, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
			secured.Close()
		}
	}), "http", "https", 1))
	s.TLS = &tls.Config{InsecureSkipVerify: true}
	dial, conns := s.Dial, make(chan net.Conn, 1)
	s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		conns <- c
		return c, err
	}
	for range 3 {
		res, err := s.send(t.Context(), "POST", "hello")
		if got := read(t, res, err); got != "hello" {
			t.Errorf("got %q", got)
		}
		ended(t, <-conns)
	}
}

// A hidden is a connection of a type of somebody's own.
type hidden struct{ net.Conn }

// A nested is one that says what is within.
type nested struct{ net.Conn }

func (n nested) NetConn() net.Conn { return n.Conn }

// What a backend says before it is asked is no answer to any request, whatever Dial returns.
func TestUnaskedAnswerOnAnyConnection(t *testing.T) {
	t.Parallel()
	ca := httptest.NewTLSServer(nil)
	ca.Close()
	for _, tt := range []struct {
		name   string
		secure bool
		wrap   func(net.Conn) net.Conn
	}{
		{"plain", false, func(c net.Conn) net.Conn { return c }},
		{"nested", false, func(c net.Conn) net.Conn { return nested{c} }},
		{"nested twice", false, func(c net.Conn) net.Conn { return nested{nested{c}} }},
		{"hidden", false, func(c net.Conn) net.Conn { return hidden{c} }},
		{"TLS", true, func(c net.Conn) net.Conn { return c }},
		{"TLS over nested", true, func(c net.Conn) net.Conn { return nested{c} }},
		{"TLS over hidden", true, func(c net.Conn) net.Conn { return hidden{c} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			heard := make(chan struct{})
			url := raw(t, func(c net.Conn) {
				if tt.secure {
					c = tls.Server(c, ca.TLS)
				}
				if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
					return
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
				<-heard
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!")
				io.Copy(io.Discard, c)
			})
			if tt.secure {
				url = strings.Replace(url, "http", "https", 1)
			}
			s := reach(t, url)
			s.TLS = &tls.Config{InsecureSkipVerify: true}
			dial, conns := s.Dial, make(chan net.Conn, 2)
			s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := dial(ctx, network, addr)
				conns <- c
				return tt.wrap(c), err
			}
			for n := range 2 {
				res, err := s.send(t.Context(), "GET", "")
				if got := read(t, res, err); got != "hello" {
					t.Errorf("got %q", got)
				}
				if n == 0 {
					close(heard)
					ended(t, <-conns)
				}
			}
		})
	}
}

// A stubborn is a connection whose Read doesn't notice that what is within was closed.
type stubborn struct {
	nested
	asked  sync.Once
	asks   chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (s *stubborn) Write(p []byte) (int, error) {
	s.asked.Do(func() { close(s.asks) })
	return s.Conn.Write(p)
}

func (s *stubborn) Read(p []byte) (int, error) {
	select {
	case <-s.asks:
		<-s.closed
		return 0, net.ErrClosed
	default:
		return s.Conn.Read(p)
	}
}

func (s *stubborn) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Conn.Close()
}

// A request whose client goes away closes the connection that Dial has returned, and not only
// what is within.
func TestCancelClosesTheWholeConnection(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) { io.Copy(io.Discard, c) }))
	dial, conns := s.Dial, make(chan *stubborn, 1)
	s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		wrapped := &stubborn{nested: nested{c}, asks: make(chan struct{}), closed: make(chan struct{})}
		conns <- wrapped
		return wrapped, err
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() {
		_, err := s.send(ctx, "GET", "")
		over <- err
	}()
	c := <-conns
	<-c.asks
	cancel()
	select {
	case err := <-over:
		if err == nil {
			t.Error("it has an answer")
		}
	case <-time.After(5 * time.Second):
		c.Close()
		t.Errorf("only what is within was closed: %v", <-over)
	}
}
