package middleware_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// echo is a WebSocket server that sends each message back.
var echo http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	for {
		typ, data, err := conn.Read(r.Context())
		if err != nil || conn.Write(r.Context(), typ, data) != nil {
			return
		}
	}
})

// dial opens a WebSocket as c, cookies included.
func dial(t *testing.T, c *http.Client, srv *httptest.Server) (*websocket.Conn, *http.Response) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, res, err := websocket.Dial(ctx, srv.URL, &websocket.DialOptions{HTTPClient: c, Subprotocols: []string{"chat"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return conn, res
}

// talk sends a message and waits for its echo.
func talk(t *testing.T, conn *websocket.Conn) {
	t.Helper()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, data, err := conn.Read(t.Context()); err != nil || string(data) != "hello" {
		t.Fatalf("echo: %q, %v", data, err)
	}
}

func TestTunnel(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 3, echo)
	opened, closed := make(chan string, 1), make(chan upgrade.Summary, 1)
	srv, _ := serve(t, pool, &limpet.Options{Trace: &limpet.Trace{
		Opened: func(_ *http.Request, b *balancer.Backend, _ *upgrade.Tunnel) { opened <- b.ID() },
		Closed: func(_ *balancer.Backend, s upgrade.Summary) { closed <- s },
	}})
	c := newClient(t)
	conn, res := dial(t, c, srv)
	home := <-opened
	if res.Header.Get("Node") != home || conn.Subprotocol() != "chat" || len(res.Cookies()) != 1 {
		t.Fatalf("101 from %s (%s), subprotocol %q, %d cookies", res.Header.Get("Node"), home, conn.Subprotocol(), len(res.Cookies()))
	}
	talk(t, conn)
	if n := pool.Get(home).InFlight(); n != 1 {
		t.Errorf("%d in flight, want the tunnel", n)
	}
	_ = conn.Close(websocket.StatusNormalClosure, "")
	s := <-closed
	if s.MessagesToBackend != 1 || s.MessagesToClient != 1 || s.Code != 1000 {
		t.Errorf("summary %+v", s)
	}
	if n := pool.Get(home).InFlight(); n != 0 {
		t.Errorf("%d in flight after the close", n)
	}
	// The cookie came with the 101 and leads a plain request home.
	if _, res = dial(t, c, srv); res.Header.Get("Node") != home {
		t.Errorf("came back to %s, not %s", res.Header.Get("Node"), home)
	}
}

func TestRefusedHandshakeIsTheBackendsWord(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "who are you?")
	}))
	srv, _ := serve(t, pool, nil)
	_, res, err := websocket.Dial(t.Context(), srv.URL, nil)
	if err == nil || res == nil {
		t.Fatal("no answer")
	}
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != 401 || string(body) != "who are you?" || res.Header.Get("WWW-Authenticate") != "Basic" {
		t.Errorf("%d %q %v", res.StatusCode, body, res.Header)
	}
}

func TestTunnelNeedsAHijacker(t *testing.T) {
	t.Parallel()
	dialled := make(chan struct{}, 1)
	pool, _ := cluster(t, 1, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { dialled <- struct{}{} }))
	gw := newGateway(t, pool, nil)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gw.ServeHTTP(struct{ http.ResponseWriter }{w}, r) // hides it
	}))
	t.Cleanup(srv.Close)
	_, res, err := websocket.Dial(t.Context(), srv.URL, nil)
	if err == nil || res == nil || res.StatusCode != 500 {
		t.Fatalf("%v, %v; want 500", res, err)
	}
	select {
	case <-dialled:
		t.Error("the backend was asked for a tunnel that could not be opened")
	default:
	}
}

// A backend that hangs in the middle of a handshake is left when it is lost.
func TestHandshakeOfALostBackend(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	var first atomic.Bool
	pool, _ := cluster(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first.CompareAndSwap(false, true) {
			asked <- w.Header().Get("Node")
			<-r.Context().Done()
			return
		}
		echo.ServeHTTP(w, r)
	}))
	srv, _ := serve(t, pool, nil)
	go func() {
		id := <-asked
		_ = pool.Remove(id)
	}()
	conn, _ := dial(t, newClient(t), srv)
	talk(t, conn)
}

func TestShutdownSpreadsTunnels(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, echo)
	srv, gw := serve(t, pool, nil)
	var conns []*websocket.Conn
	for range 5 {
		conn, _ := dial(t, newClient(t), srv)
		talk(t, conn)
		conns = append(conns, conn)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- gw.Shutdown(ctx) }()
	for _, conn := range conns {
		if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
			t.Errorf("read %v, want 1012", err)
		}
		_ = conn.CloseNow()
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if _, res, err := websocket.Dial(t.Context(), srv.URL, nil); err == nil || res == nil || res.StatusCode != 503 {
		t.Errorf("after Shutdown: %v, %v; want 503", res, err)
	}
}

// A drain closes the tunnel of a client whose first request it was at the moment
// of the key that it got with the 101: it comes back once, and not to its old home.
func TestDrainMovesANewClientOnce(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 2, echo)
	srv, _ := serve(t, pool, nil)
	type visitor struct {
		*http.Client
		conn *websocket.Conn
		home string
	}
	var visitors []visitor
	for range 6 {
		c := newClient(t)
		conn, res := dial(t, c, srv)
		visitors = append(visitors, visitor{c, conn, res.Header.Get("Node")})
	}
	if err := pool.Drain("a", time.Second); err != nil {
		t.Fatal(err)
	}
	for _, v := range visitors {
		if v.home == "b" {
			talk(t, v.conn)
			continue
		}
		if _, _, err := v.conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
			t.Errorf("read %v, want 1012", err)
		}
		if _, res := dial(t, v.Client, srv); res.Header.Get("Node") != "b" {
			t.Error("came back to the draining backend")
		}
	}
}

// What a client sends right behind its handshake isn't lost on the way through
// net/http.
func TestEarlyBytes(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		// The Accept for the key of RFC 6455, section 1.3.
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst")
		got := make([]byte, 5)
		_, _ = io.ReadFull(buf, got)
		conn.Write(got)
	}))
	srv, _ := serve(t, pool, nil)
	_, r := raw(t, srv, "GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\nearly")
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	got := make([]byte, 10)
	if _, err := io.ReadFull(r, got); err != nil || string(got) != "firstearly" {
		t.Errorf("%q, %v", got, err)
	}
}
