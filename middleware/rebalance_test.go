package middleware_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/closecode"
	limpet "github.com/limpet-go/limpet/middleware"
)

// A crowd is clients that have a WebSocket each, and come back when that is closed.
type crowd struct {
	t      *testing.T
	closed atomic.Int64 // WebSockets that were closed with 1012
	odd    atomic.Int64 // or otherwise
}

// newCrowd starts clients, of which every second one keeps no cookies if keep is false. They come
// to the servers in turn.
func newCrowd(t *testing.T, n int, keep bool, query string, servers ...*httptest.Server) *crowd {
	c := &crowd{t: t}
	ctx, cancel := context.WithCancel(context.Background())
	var all, there sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	for i := range n {
		client := &http.Client{Transport: tr}
		if keep || i%2 == 0 {
			client.Jar, _ = cookiejar.New(nil)
		}
		there.Add(1)
		all.Go(func() {
			first := there.Done
			for turn := i; ctx.Err() == nil; turn++ {
				srv := servers[turn%len(servers)]
				url := srv.URL + "?" + query
				conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: client})
				if err != nil {
					if ctx.Err() == nil {
						c.odd.Add(1)
						time.Sleep(10 * time.Millisecond)
					}
					continue
				}
				first()
				first = func() {}
				_, _, err = conn.Read(ctx)
				conn.CloseNow()
				switch {
				case ctx.Err() != nil:
				case websocket.CloseStatus(err) == closecode.ServiceRestart:
					c.closed.Add(1)
				default:
					c.odd.Add(1)
				}
			}
			first()
		})
	}
	there.Wait()
	return c
}

// tunnels returns how many each backend has at all gateways.
func tunnels(gateways ...*limpet.Gateway) map[string]int64 {
	n := make(map[string]int64)
	for _, gw := range gateways {
		for _, b := range gw.Stats().Backends {
			n[b.Backend.ID()] += b.Tunnels
		}
	}
	return n
}

// restart drains the backends one after another, and has each come back when the clients are
// all elsewhere.
func restart(t *testing.T, clients int64, pools []*balancer.Pool, gateways []*limpet.Gateway) {
	t.Helper()
	for _, id := range []string{"a", "b", "c"} {
		for _, pool := range pools {
			ok(t, pool.Drain(id, 300*time.Millisecond))
		}
		for _, pool := range pools {
			await(t, pool, id, down)
		}
		until(t, "all clients are elsewhere", func() bool {
			at := tunnels(gateways...)
			return at[id] == 0 && at["a"]+at["b"]+at["c"] == clients
		})
		for _, pool := range pools {
			ok(t, pool.Undrain(id))
		}
	}
}

// until polls what has no event.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not yet: %s", what)
		}
	}
}

func settled(gateways ...*limpet.Gateway) bool {
	for _, gw := range gateways {
		if s := gw.Stats().Rebalance; s.Running && (s.Waits != "" || s.Left > 0 || s.Moved == 0) {
			return false
		}
	}
	return true
}

// After a rolling restart no backend has less than half of its share within the time that was
// set, and no more clients have moved than had to.
func TestRebalance(t *testing.T) {
	t.Parallel()
	chain := func() affinity.Affinity {
		return affinity.Chain{&affinity.EngineIO{Secrets: testKeys}, &affinity.Cookie{Secrets: testKeys}}
	}
	for _, tt := range []struct {
		name     string
		affinity func() affinity.Affinity
		keep     bool // all clients keep cookies
		replicas int
	}{
		{"by cookie", func() affinity.Affinity { return &affinity.Cookie{Secrets: testKeys} }, true, 1},
		{"some without cookies", chain, false, 1},
		{"nobody can be recognized", func() affinity.Affinity { return &affinity.EngineIO{Secrets: testKeys} }, true, 1},
		{"two replicas", chain, true, 2},
		{"two replicas, some without cookies", chain, false, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const clients, within = 90, 3 * time.Second
			nodes := map[string]*node{"a": newNode(t, "a", echo), "b": newNode(t, "b", echo), "c": newNode(t, "c", echo)}
			mem := &bus.Memory{}
			wait := heard(t, mem)
			var servers []*httptest.Server
			var gateways []*limpet.Gateway
			var pools []*balancer.Pool
			for range tt.replicas {
				pool := poolOf(t, nil, nodes)
				opts := &limpet.Options{Affinity: tt.affinity(), Rebalance: within}
				if tt.replicas > 1 {
					opts.Bus = mem
				}
				srv, gw := serve(t, pool, opts)
				if opts.Bus != nil {
					runGateway(t, gw)
					wait(1)
				}
				servers, gateways, pools = append(servers, srv), append(gateways, gw), append(pools, pool)
			}
			c := newCrowd(t, clients, tt.keep, "", servers...)
			restart(t, clients, pools, gateways)
			if at := tunnels(gateways...); at["c"] > clients/10 {
				t.Fatalf("the last one has clients: %v", at)
			}
			before := c.closed.Load()
			polls, began := 0, time.Now()
			until(t, "each backend has half of its share", func() bool {
				polls++
				at := tunnels(gateways...)
				return min(at["a"], at["b"], at["c"]) >= clients/3/2
			})
			// Counted by polls, of which there are 50 a second: where the machine is too busy
			// for that, the steps of rebalancing are late too, but not by so much.
			if took := time.Duration(polls) * 20 * time.Millisecond; took > within*5/4 || time.Since(began) > 3*within {
				t.Errorf("half of a share took %v, or %v by the clock, want %v", took, time.Since(began), within)
			}
			// Those that came back to another replica without a cookie may be expected in vain
			// for 10 s before they are missed.
			var at map[string]int64
			balanced := func() bool {
				at = tunnels(gateways...)
				return settled(gateways...) && min(at["a"], at["b"], at["c"]) >= clients/3*2/3
			}
			for end := time.Now().Add(3 * patience); !balanced(); time.Sleep(20 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("no balance: %v, and %+v", at, gateways[0].Stats().Rebalance)
				}
			}
			if moved := c.closed.Load() - before; moved > clients/3+clients/10 {
				t.Errorf("%d clients have moved to make it %v", moved, at)
			}
			if n := c.odd.Load(); n > 0 {
				t.Errorf("%d WebSockets ended otherwise than by a close frame 1012", n)
			}
		})
	}
}

// Nobody moves without the option, in balance, or away from a home that isn't the gateway's
// own choice.
func TestRebalanceMovesNobody(t *testing.T) {
	t.Parallel()
	cookie := &affinity.Cookie{Secrets: testKeys}
	for name, tt := range map[string]struct {
		opts    limpet.Options
		query   string
		settles func(pool *balancer.Pool) error
	}{
		"off by default": {limpet.Options{Affinity: cookie}, "", nil},
		"explicit": {limpet.Options{Rebalance: time.Second, Affinity: affinity.Chain{
			&affinity.EngineIO{Secrets: testKeys}, &affinity.CookieMap{Name: "server", Backends: map[string]string{"1": "a"}, Default: "a"},
		}}, "", nil},
		"hash": {limpet.Options{Rebalance: time.Second, Affinity: affinity.Chain{
			&affinity.EngineIO{Secrets: testKeys}, &affinity.Hash{Key: affinity.Query("user")},
		}}, "user=u", nil},
		"drain": {limpet.Options{Rebalance: time.Second, Affinity: &affinity.Cookie{Secrets: testKeys}}, "", func(p *balancer.Pool) error {
			if err := p.SetWeight("b", 1000); err != nil {
				return err
			}
			return p.Drain("c", time.Hour) // which nobody uses
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, _ := cluster(t, 3, echo)
			ok(t, pool.Off("b"))
			ok(t, pool.Off("c"))
			srv, gw := serve(t, pool, &tt.opts)
			c := newCrowd(t, 20, true, tt.query, srv)
			if tt.settles == nil {
				ok(t, pool.Undrain("c"))
			} else {
				ok(t, tt.settles(pool))
			}
			ok(t, pool.Undrain("b"))
			time.Sleep(2 * time.Second) // for nothing to happen
			s := gw.Stats()
			if n := c.closed.Load() + c.odd.Load(); n > 0 || s.Backends[0].Tunnels != 20 {
				t.Errorf("%d have left a, where %d are", n, s.Backends[0].Tunnels)
			}
			switch name {
			case "off by default":
				if s.Rebalance != nil {
					t.Errorf("%+v", s.Rebalance)
				}
			case "drain":
				if s.Rebalance.Waits != "a drain of backend c" {
					t.Errorf("%+v", s.Rebalance)
				}
				ok(t, pool.Undrain("c"))
				until(t, "b has most clients", func() bool { return tunnels(gw)["b"] >= 15 })
			}
		})
	}
}

// In balance nobody moves, however many runs there are, and while clients come and go.
func TestRebalanceDoesNotFlap(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 3, echo)
	srv, gw := serve(t, pool, &limpet.Options{Rebalance: 500 * time.Millisecond})
	c := newCrowd(t, 60, true, "", srv)
	for range 5 {
		ok(t, pool.SetWeight("a", 1)) // as is configured
		ok(t, pool.SetWeight("a", 0))
		time.Sleep(time.Duration(300+rand.IntN(100)) * time.Millisecond)
	}
	if n := c.closed.Load(); n > 0 {
		t.Errorf("%d clients have moved: %v", n, tunnels(gw))
	}
}

func TestRebalanceIsWrong(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, nil)
	for _, tt := range []struct {
		opts limpet.Options
		says string
	}{
		{limpet.Options{Rebalance: -time.Second}, "negative"},
		{limpet.Options{Rebalance: 120}, "counts nanoseconds"},
		{limpet.Options{Rebalance: time.Minute, Affinity: &affinity.Hash{Key: affinity.Query("u")}}, "would move nobody"},
		{limpet.Options{Rebalance: time.Minute, Affinity: affinity.Chain{&affinity.Table{Key: affinity.Query("u")}}}, "would move nobody"},
	} {
		tt.opts.Logger = slog.New(slog.DiscardHandler)
		if _, err := limpet.NewGateway(pool, &tt.opts); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v: %v, want %q", tt.opts.Rebalance, err, tt.says)
		}
	}
}
