package middleware_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/pires/go-proxyproto"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// asks returns what a backend behind gw answers to a request and over a WebSocket:
// the text that tell makes of the request.
func asks(t *testing.T, srv *httptest.Server, header http.Header) (plain, socket string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header.Clone()
	res, err := newClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res.Status, err)
	}
	conn, _, err := websocket.Dial(t.Context(), srv.URL, &websocket.DialOptions{HTTPHeader: header.Clone()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	_, message, err := conn.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(body), string(message)
}

// telling is a handler that answers with what tell says, plain or over a WebSocket.
func telling(tell func(*http.Request) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			io.WriteString(w, tell(r))
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		_ = conn.Write(r.Context(), websocket.MessageText, []byte(tell(r)))
	})
}

// listening starts a backend on l.
func listening(t *testing.T, l net.Listener, h http.Handler) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
}

func TestUnixSocketBackend(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	listening(t, l, telling(func(r *http.Request) string { return r.Host }))
	pool := balancer.Static("a=unix://" + path)
	for backendHost, want := range map[bool]string{true: "localhost", false: "127.0.0.1"} {
		srv, _ := serve(t, pool, &limpet.Options{BackendHost: backendHost})
		plain, socket := asks(t, srv, nil)
		if !strings.HasPrefix(plain, want) || !strings.HasPrefix(socket, want) {
			t.Errorf("the backend saw Host %q, and %q for a WebSocket; want %s", plain, socket, want)
		}
	}
}

// The backend learns the client's address from the PROXY protocol: that of the
// connection to the gateway, or what a trusted proxy says.
func TestProxyProtocolToBackends(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listening(t, &proxyproto.Listener{Listener: tcp}, telling(func(r *http.Request) string {
		local := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		return r.RemoteAddr + " " + local.String() + " " + r.Header.Get("X-Real-Ip")
	}))
	b, err := balancer.NewBackend("a", "http://"+tcp.Addr().String(), 1)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := balancer.NewPool(&balancer.Options{Transport: &balancer.Transport{ProxyProtocol: 2}}, b)
	if err != nil {
		t.Fatal(err)
	}
	nobody := limpet.ClientIP{}
	loopback := limpet.ClientIP{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	forwarded := http.Header{"X-Forwarded-For": {"203.0.113.9"}}

	for name, clientIP := range map[string]limpet.ClientIP{"nobody is trusted": nobody, "the peer is trusted": loopback} {
		gateway, _ := serve(t, pool, &limpet.Options{ClientIP: clientIP})
		sticky := httptest.NewServer(&httputil.ReverseProxy{
			Rewrite:   func(r *httputil.ProxyRequest) { r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"] },
			Transport: &limpet.Sticky{Pool: pool, ClientIP: clientIP},
		})
		t.Cleanup(sticky.Close)
		for who, srv := range map[string]*httptest.Server{"gateway": gateway, "sticky": sticky} {
			plain, socket := asks(t, srv, forwarded)
			for _, saw := range []string{plain, socket} {
				ends := strings.Fields(saw)
				client, _ := netip.ParseAddrPort(ends[0])
				want := "127.0.0.1"
				if clientIP.Trusted != nil {
					want = "203.0.113.9"
				}
				if client.Addr().String() != want || (client.Port() == 0) != (clientIP.Trusted != nil) || ends[1] != srv.Listener.Addr().String() {
					t.Errorf("%s, %s: the backend saw %q, want the client %s and the address %s", name, who, saw, want, srv.Listener.Addr())
				}
			}
		}
	}
}
