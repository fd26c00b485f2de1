package balancer_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/limpet-go/limpet/balancer"
)

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.sock")
	checked := make(chan string, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			checked <- r.Host
		}
		io.WriteString(w, r.Host+" "+r.RequestURI)
	}))
	server.Listener.Close()
	var err error
	server.Listener, err = net.Listen("unix", path)
	must(t, err)
	server.Start()
	t.Cleanup(server.Close)

	s := reach(t, "unix://"+path)
	res, err := s.send(t.Context(), "POST", "hello")
	if got, want := read(t, res, err), "site.example /path?a=1;b=2"; got != want {
		t.Errorf("the backend saw %q, want %q", got, want)
	}
	req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "GET", "http://site.example/", nil)
	must(t, err)
	req.Host = ""
	res, err = s.RoundTrip(req)
	if got, want := read(t, res, err), "localhost /"; got != want {
		t.Errorf("the backend saw %q, want %q", got, want)
	}
	if n := s.dials.Load(); n != 1 {
		t.Errorf("%d connections for requests one after the other, want 1", n)
	}

	c, err := s.Connect(t.Context(), s.Backend)
	must(t, err)
	defer c.Close()
	io.WriteString(c, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
	_, err = http.ReadResponse(bufio.NewReader(c), nil)
	must(t, err)

	b, err := balancer.ParseBackend("a=unix://" + path)
	must(t, err)
	p, err := balancer.NewPool(&balancer.Options{Check: &balancer.Check{Path: "/health"}}, b)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	if host := <-checked; host != "localhost" {
		t.Errorf("the check is for the host %q, want localhost", host)
	}
	cancel()
	must(t, <-done)
}

func TestUnixSocketIsGone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.sock")
	s := reach(t, "unix://"+path)
	_, err := s.send(t.Context(), "POST", "hello")
	fails(t, err, false, syscall.ECONNREFUSED)
	if want := "dial unix " + path + ": connect: no such file"; !strings.Contains(err.Error(), want) {
		t.Errorf("the error says %q, want %q in it", err, want)
	}

	// Its process was killed, and nobody took the socket away.
	l, err := net.Listen("unix", path)
	must(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	_, err = s.Connect(t.Context(), s.Backend)
	fails(t, err, false, syscall.ECONNREFUSED)
}
