package middleware_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// Each tunnel joins the hub of its gateway, and a message to the room reaches the
// clients of both gateways while they talk to their backends.
func TestJoin(t *testing.T) {
	t.Parallel()
	nodes := map[string]*node{"a": newNode(t, "a", echo), "b": newNode(t, "b", echo)}
	mem := &bus.Memory{}
	left := make(chan string, 10)
	var hubs []*hub.Hub
	var conns []*websocket.Conn
	for range 2 {
		h, err := hub.New(mem, &hub.Options{Left: func(_ *hub.Member, room string) { left <- room }})
		ok(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			ok(t, <-ended)
		})
		srv, gw := serve(t, poolOf(t, nil, nodes), nil)
		gw.Observe(limpet.Observer{
			Opened: func(rec *limpet.Record, tunnel *upgrade.Tunnel) {
				if _, err := limpet.Join(rec.Request.Context(), h, tunnel, hub.MemberOptions{Rooms: []string{"news"}}); err != nil {
					t.Error(err)
				}
			},
		})
		hubs = append(hubs, h)
		for range 2 {
			conn, _ := dial(t, newClient(t), srv)
			conns = append(conns, conn)
		}
	}
	const messages = 20
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, conn := range conns {
		wg.Go(func() {
			for i := range messages {
				if err := conn.Write(t.Context(), websocket.MessageText, fmt.Append(nil, "mine ", i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for i := range messages {
			ok(t, hubs[i%2].Send(t.Context(), hub.Who{Rooms: []string{"news"}}, hub.Text(fmt.Append(nil, "news ", i))))
		}
	})
	for _, conn := range conns {
		mine, news := 0, 0
		for mine < messages || news < messages {
			_, data, err := conn.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var i int
			if n, _ := fmt.Sscanf(string(data), "mine %d", &i); n == 1 && i == mine {
				mine++
			} else if n, _ := fmt.Sscanf(string(data), "news %d", &i); n == 1 {
				news++
			} else {
				t.Fatalf("got %q after %d and %d", data, mine, news)
			}
		}
	}
	// The tunnel's end is the member's, and the other way round.
	_ = conns[0].Close(websocket.StatusNormalClosure, "")
	if room := <-left; room != "news" {
		t.Errorf("left %q", room)
	}
	for m := range hubs[1].Local(hub.Who{All: true}) {
		m.Close(4002, "enough")
	}
	for _, conn := range conns[2:] {
		if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != 4002 {
			t.Errorf("ended with %v", err)
		}
	}
}
