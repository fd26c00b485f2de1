package balancer_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/pires/go-proxyproto"

	"github.com/limpet-go/limpet/balancer"
)

// A proxied is a backend that wants the header of the PROXY protocol.
type proxied struct {
	*httptest.Server
	headers chan *proxyproto.Header // one for each connection
}

func newProxied(t *testing.T, secure bool) *proxied {
	t.Helper()
	p := &proxied{headers: make(chan *proxyproto.Header, 100)}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Host+" "+r.RemoteAddr)
	}))
	p.Listener = &proxyproto.Listener{Listener: p.Listener, ValidateHeader: func(h *proxyproto.Header) error {
		p.headers <- h
		return nil
	}}
	if secure {
		p.StartTLS()
	} else {
		p.Start()
	}
	t.Cleanup(p.Close)
	return p
}

// ends returns what the header says of a client's connection.
func ends(h *proxyproto.Header) string {
	if h.Command.IsLocal() {
		return "local"
	}
	return h.SourceAddr.String() + " " + h.DestinationAddr.String()
}

func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, from, to, want string }{
		{"IPv4", "192.0.2.1:1234", "198.51.100.1:80", "192.0.2.1:1234 198.51.100.1:80"},
		{"IPv6", "[2001:db8::1]:1234", "[2001:db8::2]:80", "[2001:db8::1]:1234 [2001:db8::2]:80"},
		{"mapped", "[::ffff:192.0.2.1]:1234", "[::ffff:198.51.100.1]:80", "192.0.2.1:1234 198.51.100.1:80"},
		{"zone", "[fe80::1%eth0]:1234", "[fe80::2%eth0]:80", "[fe80::1]:1234 [fe80::2]:80"},
		{"IPv4 to IPv6", "192.0.2.1:0", "[2001:db8::2]:80", "192.0.2.1:0 0.0.0.0:80"},
		{"IPv6 to IPv4", "[2001:db8::1]:0", "198.51.100.1:80", "[2001:db8::1]:0 [::]:80"},
		{"reached at nobody knows where", "192.0.2.1:1234", "", "192.0.2.1:1234 0.0.0.0:0"},
		{"no client", "", "", "local"},
	} {
		for version := 1; version <= 2; version++ {
			for _, secure := range []bool{false, true} {
				t.Run(tt.name, func(t *testing.T) {
					t.Parallel()
					server := newProxied(t, secure)
					s := reach(t, server.URL)
					s.ProxyProtocol = version
					if secure {
						s.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
						s.TLS.RootCAs.AddCert(server.Certificate())
					}
					ctx := t.Context()
					if tt.from != "" {
						to, _ := netip.ParseAddrPort(tt.to)
						ctx = balancer.WithClient(ctx, netip.MustParseAddrPort(tt.from), to)
					}
					res, err := s.send(ctx, "GET", "")
					read(t, res, err)
					c, err := s.Connect(ctx, s.Backend)
					must(t, err)
					defer c.Close()
					io.WriteString(c, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
					_, err = http.ReadResponse(bufio.NewReader(c), nil)
					must(t, err)
					for range 2 {
						if h := <-server.headers; ends(h) != tt.want || int(h.Version) != version {
							t.Errorf("version %d, %s; want %d, %s", h.Version, ends(h), version, tt.want)
						}
					}
				})
			}
		}
	}
}

// A connection is kept for the client it was opened for, and for nobody else.
func TestProxyProtocolKeepsClientsApart(t *testing.T) {
	t.Parallel()
	server := newProxied(t, false)
	s := reach(t, server.URL)
	s.ProxyProtocol = 2
	to := netip.MustParseAddrPort("198.51.100.1:80")
	for range 2 {
		for _, from := range []string{"192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1"} {
			res, err := s.send(balancer.WithClient(t.Context(), netip.MustParseAddrPort(from), to), "GET", "")
			if got := read(t, res, err); got != "site.example "+from {
				t.Errorf("the backend saw %q, want %q", got, "site.example "+from)
			}
		}
		res, err := s.send(t.Context(), "GET", "")
		read(t, res, err)
	}
	if n := s.dials.Load(); n != 4 {
		t.Errorf("%d connections, want one for each client and one for none", n)
	}

	// Without a Host of its own the request gets the backend's.
	req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "GET", "http://site.example/", nil)
	must(t, err)
	req.Host = ""
	res, err := s.RoundTrip(req)
	if got, want := read(t, res, err), s.URL().Host+" "; len(got) < len(want) || got[:len(want)] != want {
		t.Errorf("the backend saw %q, want the host %s", got, want)
	}
}

func TestProxyProtocolOfChecks(t *testing.T) {
	t.Parallel()
	server := newProxied(t, false)
	for version := 1; version <= 2; version++ {
		b, err := balancer.NewBackend("a", server.URL, 1)
		must(t, err)
		p, err := balancer.NewPool(&balancer.Options{
			Check:     &balancer.Check{Path: "/health"},
			Transport: &balancer.Transport{ProxyProtocol: version},
			StartDown: true,
		}, b)
		must(t, err)
		up := make(chan struct{}, 1)
		p.OnChange(func(balancer.Change) { up <- struct{}{} })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		<-up
		cancel()
		must(t, <-done)
		if h := <-server.headers; ends(h) != "local" || int(h.Version) != version {
			t.Errorf("a check is version %d, %s; want %d, local", h.Version, ends(h), version)
		}
	}
}

func TestProxyProtocolVersions(t *testing.T) {
	t.Parallel()
	for _, version := range []int{-1, 3} {
		if _, err := balancer.NewPool(&balancer.Options{Transport: &balancer.Transport{ProxyProtocol: version}}); err == nil {
			t.Errorf("a pool with version %d was made", version)
		}
		s := reach(t, raw(t, func(net.Conn) {}))
		s.ProxyProtocol = version
		_, err := s.send(t.Context(), "GET", "")
		fails(t, err, false, nil)
	}
}
