package middleware_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
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

// handshake asks for a WebSocket, with the key of RFC 6455, section 1.3.
const handshake = "GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n"

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
	srv, gw := serve(t, pool, nil)
	gw.Observe(limpet.Observer{
		Opened: func(rec *limpet.Record, _ *upgrade.Tunnel) { opened <- rec.Backend.ID() },
		Closed: func(rec *limpet.TunnelRecord) { closed <- rec.Summary },
	})
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

// The backend's own answer to a handshake arrives whole, however late its body is.
func TestRefusedHandshakesBody(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, first, later, body string }{
		{"late", "Content-Length: 10\r\n\r\n", "0123456789", "0123456789"},
		{"in pieces", "Content-Length: 10\r\n\r\n01234", "56789", "0123456789"},
		{"chunked", "Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n", "5\r\n56789\r\n0\r\n\r\n", "0123456789"},
		{"large", "Content-Length: 100000\r\n\r\n", strings.Repeat("x", 100_000), strings.Repeat("x", 100_000)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			answered := make(chan struct{})
			url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
				if _, err := http.ReadRequest(r); err == nil {
					io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\n"+tt.first)
					<-answered
					io.WriteString(conn, tt.later)
				}
			})
			srv, _ := serve(t, balancer.Static("a="+url), &limpet.Options{ModifyResponse: func(*http.Response) error {
				close(answered)
				return nil
			}})
			_, r := raw(t, srv, handshake)
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(res.Body); res.StatusCode != 403 || string(body) != tt.body || err != nil {
				t.Errorf("%d with %d bytes of %d, %v", res.StatusCode, len(body), len(tt.body), err)
			}
		})
	}
}

func TestTunnelBackendHost(t *testing.T) {
	t.Parallel()
	host := make(chan string, 1)
	pool, nodes := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host <- r.Host
		echo.ServeHTTP(w, r)
	}))
	srv, _ := serve(t, pool, &limpet.Options{BackendHost: true})
	conn, _ := dial(t, newClient(t), srv)
	talk(t, conn)
	if got, want := <-host, nodes["a"].Listener.Addr().String(); got != want {
		t.Errorf("Host %q, want %q", got, want)
	}
}

// LeastConn must not take one handshake for two requests.
func TestHandshakeIsCountedOnce(t *testing.T) {
	t.Parallel()
	count := make(chan int64, 1)
	var pool *balancer.Pool
	pool, _ = cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count <- pool.Get("a").InFlight()
		echo.ServeHTTP(w, r)
	}))
	srv, _ := serve(t, pool, nil)
	dial(t, newClient(t), srv)
	if n := <-count; n != 1 {
		t.Errorf("%d in flight during one handshake", n)
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

// A tunnel that can't be served any more ends with an answer that says so.
func TestServeFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		modify func(pool *balancer.Pool, res *http.Response)
		around func(http.ResponseWriter) http.ResponseWriter
		status int
	}{
		{
			"its backend is gone",
			func(pool *balancer.Pool, res *http.Response) {
				_ = pool.Off(balancer.BackendFromContext(res.Request.Context()).ID())
			},
			func(w http.ResponseWriter) http.ResponseWriter { return w },
			503,
		},
		{
			"the server doesn't let go",
			func(*balancer.Pool, *http.Response) {},
			func(w http.ResponseWriter) http.ResponseWriter { return failingHijacker{w} },
			500,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool, _ := cluster(t, 1, echo)
			var became, closed atomic.Int64
			gw := newGateway(t, pool, &limpet.Options{
				ModifyResponse: func(res *http.Response) error {
					tt.modify(pool, res)
					return nil
				},
			})
			gw.Observe(limpet.Observer{
				Request: func(rec *limpet.Record) {
					if rec.Status != tt.status || rec.Tunnel || rec.Source != limpet.SourceGateway {
						became.Add(1)
						t.Errorf("the record says %d of the %v, tunnel %v", rec.Status, rec.Source, rec.Tunnel)
					}
				},
				Closed: func(*limpet.TunnelRecord) { closed.Add(1) },
			})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				gw.ServeHTTP(tt.around(w), r)
			}))
			t.Cleanup(srv.Close)
			_, res, err := websocket.Dial(t.Context(), srv.URL, nil)
			if err == nil || res == nil || res.StatusCode != tt.status {
				t.Errorf("%v, %v; want %d", res, err, tt.status)
			}
			if n := pool.Get("a").InFlight(); n != 0 {
				t.Errorf("%d in flight", n)
			}
			if became.Load() != 0 || closed.Load() != 0 {
				t.Errorf("%d tunnels, %d of them closed", became.Load(), closed.Load())
			}
		})
	}
}

type failingHijacker struct{ http.ResponseWriter }

func (failingHijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.New("no")
}

// Closed is never called without a tunnel.
func TestTunnelNeverOpened(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, echo)
	var opened, closed atomic.Int64
	srv, gw := serve(t, pool, &limpet.Options{
		ModifyResponse: func(*http.Response) error { return errors.New("not like this") },
	})
	gw.Observe(limpet.Observer{
		Opened: func(*limpet.Record, *upgrade.Tunnel) { opened.Add(1) },
		Closed: func(*limpet.TunnelRecord) { closed.Add(1) },
	})
	_, res, err := websocket.Dial(t.Context(), srv.URL, nil)
	if err == nil || res == nil || res.StatusCode != 502 {
		t.Fatalf("%v, %v; want 502", res, err)
	}
	if err := gw.Shutdown(t.Context()); err != nil { // returns when the tunnel is gone
		t.Fatal(err)
	}
	if opened.Load() != 0 || closed.Load() != 0 {
		t.Errorf("opened %d times, closed %d times", opened.Load(), closed.Load())
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

// A drain that gets rid of its deadline keeps the tunnels after all.
func TestDrainWithoutADeadlineKeepsTunnels(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 2, echo)
	if err := pool.Drain("b", 0); err != nil { // the tunnel is a's
		t.Fatal(err)
	}
	srv, _ := serve(t, pool, nil)
	conn, _ := dial(t, newClient(t), srv)
	talk(t, conn)
	for _, within := range []time.Duration{100 * time.Millisecond, 0} {
		if err := pool.Drain("a", within); err != nil {
			t.Fatal(err)
		}
	}
	// b's deadline comes later than that which a had.
	if err := pool.Drain("b", 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	await(t, pool, "b", balancer.Down)
	talk(t, conn)
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
		// The Accept for the handshake's key.
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst")
		got := make([]byte, 5)
		_, _ = io.ReadFull(buf, got)
		conn.Write(got)
	}))
	srv, _ := serve(t, pool, nil)
	_, r := raw(t, srv, handshake+"early")
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	got := make([]byte, 10)
	if _, err := io.ReadFull(r, got); err != nil || string(got) != "firstearly" {
		t.Errorf("%q, %v", got, err)
	}
}

// What comes on tunnels is a sign of life of their backend, by which health notices that it
// falls silent.
func TestTunnelsAreHeard(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, echo)
	srv, _ := serve(t, pool, nil)
	conn, _ := dial(t, http.DefaultClient, srv)
	for n := range int64(3) {
		if heard := pool.Get("a").Heard().Load(); heard < n {
			t.Errorf("heard %d times after %d messages", heard, n)
		}
		if err := conn.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := conn.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
