package middleware_test

import (
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/affinity"
	limpet "github.com/limpet-go/limpet/middleware"
)

// upgradeAs opens a WebSocket as this user of a proxy that names the client's address. It returns
// the status, and nil unless that is 101.
func (g *generation) upgradeAs(t *testing.T, user, addr string) (*websocket.Conn, int) {
	t.Helper()
	c, res, err := websocket.Dial(t.Context(), "ws://"+g.addr, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, // none stays at the predecessor
		HTTPHeader: http.Header{"X-User": {user}, "X-Forwarded-For": {addr}},
	})
	if res == nil {
		t.Fatal(err)
	}
	if c != nil {
		t.Cleanup(func() { c.CloseNow() })
	}
	return c, res.StatusCode
}

// A Limit counts the WebSockets that are taken over, each for its client, through several
// takeovers and until they end.
func TestTakeoverLimit(t *testing.T) {
	t.Parallel()
	nodes := map[string]*node{"a": newNode(t, "a", echo)}
	path := filepath.Join(t.TempDir(), "takeover")
	trusted := limpet.ClientIP{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	next := func() *generation {
		g := &generation{limit: &limpet.Limit{Connections: 2, Tunnels: 4, ClientIP: trusted}}
		g.start(t, path, nodes, nil, &limpet.Options{ClientIP: trusted, Affinity: &affinity.Table{Key: affinity.Header("X-User")}})
		return g
	}
	const ann, bob, cid = "192.0.2.1", "192.0.2.2", "192.0.2.3"
	g := next()
	first, _ := g.upgradeAs(t, "ann", ann)
	for _, addr := range []string{ann, bob} {
		if _, code := g.upgradeAs(t, "", addr); code != http.StatusSwitchingProtocols {
			t.Fatalf("a WebSocket of %s got %d", addr, code)
		}
	}
	for range 2 {
		before := g
		g = next()
		g.follows(t, before)
		eventually(t, "the predecessor to count nothing", func() bool { s := before.limit.Stats(); return s.Tunnels == 0 && s.Open == 0 })
		eventually(t, "the successor to count all", func() bool { s := g.limit.Stats(); return s.Tunnels == 3 && s.Open == 3 })
		if _, code := g.upgradeAs(t, "", ann); code != http.StatusTooManyRequests {
			t.Errorf("a third WebSocket of a client got %d", code)
		}
	}
	if _, code := g.upgradeAs(t, "", bob); code != http.StatusSwitchingProtocols {
		t.Errorf("a second WebSocket of another client got %d", code)
	}
	if _, code := g.upgradeAs(t, "", cid); code != http.StatusServiceUnavailable {
		t.Errorf("a fifth WebSocket got %d", code)
	}
	first.CloseNow()
	eventually(t, "the end of a WebSocket", func() bool { s := g.limit.Stats(); return s.Tunnels == 3 && s.Open == 3 })
	if _, code := g.upgradeAs(t, "", ann); code != http.StatusSwitchingProtocols {
		t.Errorf("after one has ended a client got %d", code)
	}
}

// The successor touches the pins of the tunnels that it takes over.
func TestTakeoverTouches(t *testing.T) {
	t.Parallel()
	nodes := map[string]*node{"a": newNode(t, "a", echo)}
	path := filepath.Join(t.TempDir(), "takeover")
	next := func() (*generation, *touches) {
		g, store := &generation{}, &touches{LRU: affinity.LRU{Idle: 10 * time.Second}}
		g.start(t, path, nodes, nil, &limpet.Options{
			Affinity: affinity.Chain{&affinity.EngineIO{Secrets: testKeys}, &affinity.Table{Name: "users", Key: affinity.Header("X-User"), Store: store}},
		})
		return g, store
	}
	before, _ := next()
	conn, _ := before.upgradeAs(t, "ann", "")
	for range 2 {
		g, store := next()
		g.follows(t, before)
		eventually(t, "a touch", func() bool { return store.count() > 0 })
		before = g
	}
	conn.CloseNow()
}

// A client that was moved is led to its new home by the successor, and once only.
func TestTakeoverMoves(t *testing.T) {
	t.Parallel()
	nodes := map[string]*node{"a": newNode(t, "a", nil), "b": newNode(t, "b", nil)}
	path := filepath.Join(t.TempDir(), "takeover")
	before := generationOf(t, path, nodes, nil)
	ask := func(g *generation) (home, word string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.addr, nil)
		ok(t, err)
		req.Header.Set("X-User", "ann")
		res := send(t, newClient(t), req) // on a connection of its own
		return res.Header.Get("Node"), res.Header.Get("Limpet-Pin")
	}
	home, _ := ask(before)
	other := map[string]string{"a": "b", "b": "a"}[home]
	ok(t, before.gateway.MovePin(t.Context(), "ann", other))
	g := generationOf(t, path, nodes, nil)
	g.follows(t, before)
	if at, word := ask(g); at != other || word != "moved" {
		t.Errorf("the client came to %s (%s), want %s", at, word, other)
	}
	ok(t, g.pool.Off(other))
	ask(g) // it goes back, as its new home is gone
	ok(t, g.pool.Undrain(other))
	next := generationOf(t, path, nodes, nil)
	next.follows(t, g)
	if at, _ := ask(next); at != home {
		t.Errorf("the client was moved to %s a second time", at)
	}
}

// Rebalance moves clients whose tunnels were taken over.
func TestTakeoverRebalance(t *testing.T) {
	t.Parallel()
	nodes := map[string]*node{"a": newNode(t, "a", echo), "b": newNode(t, "b", echo)}
	path := filepath.Join(t.TempDir(), "takeover")
	next := func() *generation {
		g := &generation{}
		g.start(t, path, nodes, nil, &limpet.Options{Rebalance: 100 * time.Millisecond, Affinity: &affinity.Cookie{Secrets: testKeys}})
		return g
	}
	before := next()
	ok(t, before.pool.Off("b"))
	for range 20 {
		before.upgradeAs(t, "", "")
	}
	g := next()
	g.follows(t, before)
	eventually(t, "the tunnels", func() bool { return g.gateway.Stats().Tunnels == 20 })
	ok(t, g.pool.Undrain("b"))
	eventually(t, "a move", func() bool { return g.gateway.Stats().Rebalance.Moved > 0 })
}
