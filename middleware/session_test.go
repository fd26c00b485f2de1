package middleware_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/bus"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// runGateway takes part in the gateway's bus until the test ends.
func runGateway(t *testing.T, gw *limpet.Gateway) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- gw.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// heard subscribes to what replicas say and returns a function that waits for a
// number of notes: those that asked are listening then.
func heard(t *testing.T, b bus.Bus) (wait func(notes int)) {
	t.Helper()
	sub, err := b.Subscribe(t.Context(), "limpet:gateway")
	ok(t, err)
	t.Cleanup(func() { sub.Close() })
	return func(notes int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for range notes {
			_, err := sub.Next(ctx)
			ok(t, err)
		}
	}
}

// One client's tunnels are closed on all replicas, new ones and those that came
// home alike, and nobody else's.
func TestCloseSession(t *testing.T) {
	t.Parallel()
	mem := &bus.Memory{}
	wait := heard(t, mem)
	nodes := map[string]*node{"a": newNode(t, "a", echo), "b": newNode(t, "b", echo)}
	opened := make(chan *upgrade.Tunnel, 10)
	replica := func() (func(*http.Client) *websocket.Conn, *limpet.Gateway) {
		srv, gw := serve(t, poolOf(t, nil, nodes), &limpet.Options{Bus: mem})
		gw.Observe(limpet.Observer{Opened: func(_ *limpet.Record, tunnel *upgrade.Tunnel) { opened <- tunnel }})
		runGateway(t, gw)
		return func(c *http.Client) *websocket.Conn {
			conn, _ := dial(t, c, srv)
			return conn
		}, gw
	}
	dialOne, one := replica()
	dialOther, _ := replica()
	wait(2)

	ann, ben := newClient(t), newClient(t)
	conns := []*websocket.Conn{dialOne(ann)}
	key := (<-opened).Key()
	conns = append(conns, dialOne(ann), dialOther(ann))
	for range 2 {
		if k := (<-opened).Key(); k != key || key == "" {
			t.Fatalf("key %q, then %q", key, k)
		}
	}
	stays := dialOther(ben)
	ok(t, one.CloseSession(t.Context(), key, 4001, "signed out"))
	for i, conn := range conns {
		if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != 4001 {
			t.Errorf("tunnel %d ended with %v", i, err)
		}
	}
	talk(t, stays)
	if one.CloseSession(t.Context(), "", 4001, "") == nil {
		t.Error("closed the tunnels of whoever has no key")
	}
	cut, cancel := context.WithCancel(t.Context())
	cancel()
	if one.CloseSession(cut, key, 4001, "") == nil {
		t.Error("no error, though no replica was told")
	}
}
