package balancer_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// acquire takes a place for a request without a context of its own.
func acquire(t testing.TB, p *balancer.Pool, home, key string) *balancer.Backend {
	t.Helper()
	b, err := p.Acquire(t.Context(), nil, home, key, false)
	must(t, err)
	return b
}

// later acquires in a goroutine of its own, and tells how that went.
func later(ctx context.Context, p *balancer.Pool, home, key string, tunnel bool) <-chan string {
	done := make(chan string, 1)
	go func() {
		b, err := p.Acquire(ctx, nil, home, key, tunnel)
		if err != nil {
			done <- err.Error()
			return
		}
		done <- b.ID()
	}()
	synctest.Wait()
	return done
}

func has(c <-chan string) string {
	synctest.Wait()
	select {
	case s := <-c:
		return s
	default:
		return "waits"
	}
}

func TestLimitSpreadsNewClients(t *testing.T) {
	t.Parallel()
	for name, picker := range pickers() {
		p := newPool(t, &balancer.Options{Picker: picker, Limit: &balancer.Limit{Requests: 5, Queue: -1}}, "a", "b", "c")
		for i := range 15 {
			key := ""
			if i%3 == 0 {
				key = "office" // a key without a home doesn't wait either
			}
			acquire(t, p, "", key)
		}
		for b := range p.All() {
			if b.InFlight() != 5 {
				t.Errorf("%s: %s has %d requests, want 5", name, b.ID(), b.InFlight())
			}
		}
		_, err := p.Acquire(t.Context(), nil, "", "", false)
		if !errors.Is(err, balancer.ErrFull) || !errors.Is(err, balancer.ErrNoBackend) {
			t.Errorf("%s: %v, want ErrFull", name, err)
		}
		if _, err := p.Acquire(t.Context(), nil, "b", "", false); !errors.Is(err, balancer.ErrFull) {
			t.Errorf("%s, pinned: %v, want ErrFull", name, err)
		}
		if n := p.Get("b").Refused(); n < 1 || n > 2 {
			t.Errorf("%s: %d were refused at b", name, n)
		}
		// Tunnels have no limit here, and don't take the places of requests.
		b, err := p.Acquire(t.Context(), nil, "b", "", true)
		must(t, err)
		p.Get("b").End()
		acquire(t, p, "", "")
		b.EndTunnel()
		if p.Get("b").InFlight() != 5 {
			t.Errorf("%s: b has %d", name, p.Get("b").InFlight())
		}
	}
}

// The queue of a backend is first come, first served, bounded in length and time, and those
// who leave it don't hold up the others.
func TestLimitQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, &balancer.Options{Limit: &balancer.Limit{Requests: 1, Tunnels: 1, Queue: 3, Wait: 10 * time.Second}}, "a", "b")
		a := p.Get("a")
		acquire(t, p, "a", "")
		first := later(t.Context(), p, "a", "", false)
		ctx, cancel := context.WithCancel(t.Context())
		second := later(ctx, p, "a", "", false)
		third := later(t.Context(), p, "a", "", false)
		if a.Queued() != 3 || a.InFlight() != 1 {
			t.Errorf("%d wait, %d in flight", a.Queued(), a.InFlight())
		}
		if got := has(later(t.Context(), p, "a", "", false)); got != balancer.ErrFull.Error() || a.Refused() != 1 {
			t.Errorf("the queue is full, and the next one: %s; %d refused", got, a.Refused())
		}
		if got := has(later(t.Context(), p, "a", "", true)); got != "a" {
			t.Errorf("a tunnel has a place of its own: %s", got)
		}
		if got := has(later(t.Context(), p, "", "", false)); got != "b" {
			t.Errorf("a new client: %s", got)
		}
		cancel()
		if got := has(second); got != context.Canceled.Error() || a.Queued() != 2 {
			t.Errorf("a client that has left: %s, %d wait", got, a.Queued())
		}
		a.End()
		if got := has(first) + " " + has(third); got != "a waits" {
			t.Errorf("after an end: %s", got)
		}
		a.End()
		if got := has(third); got != "a" || a.InFlight() != 2 { // with the tunnel
			t.Errorf("after the next end: %s, %d in flight", got, a.InFlight())
		}

		late := later(t.Context(), p, "a", "", false)
		time.Sleep(9 * time.Second)
		if got := has(late); got != "waits" {
			t.Errorf("after 9 s: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := has(late); got != balancer.ErrFull.Error() || a.Queued() != 0 || a.Refused() != 2 {
			t.Errorf("after 11 s: %s, %d wait, %d refused", got, a.Queued(), a.Refused())
		}
		// Begin takes a place even if there is none, and its End gives back no more.
		a.Begin()
		a.End()
		if got := has(later(t.Context(), p, "a", "", false)); got != "waits" {
			t.Errorf("one of two has ended, and the next one: %s", got)
		}
		a.End()
		synctest.Wait()
		if a.Queued() != 0 || a.InFlight() != 2 {
			t.Errorf("%d wait, %d in flight", a.Queued(), a.InFlight())
		}
	})
}

// A client may leave at the moment at which it gets a place.
func TestLimitLeavesWithAPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, &balancer.Options{Limit: &balancer.Limit{Requests: 1}}, "a")
		a := p.Get("a")
		for range 50 { // which of both it sees first is random
			acquire(t, p, "a", "")
			ctx, cancel := context.WithCancel(t.Context())
			leaving := later(ctx, p, "a", "", false)
			cancel()
			a.End()
			if got := has(leaving); got == "a" {
				a.End()
			}
			if a.InFlight() != 0 || a.Queued() != 0 {
				t.Fatalf("%d in flight, %d wait", a.InFlight(), a.Queued())
			}
		}
		acquire(t, p, "a", "")
	})
}

// What becomes of those who wait when their backend goes.
func TestLimitLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, &balancer.Options{Picker: &balancer.LeastConn{}, Limit: &balancer.Limit{Requests: 1}}, "a", "b")
		a, b := p.Get("a"), p.Get("b")
		acquire(t, p, "a", "")
		acquire(t, p, "b", "")
		b.Begin() // so that a's queue is the shorter one
		pinned, other := later(t.Context(), p, "a", "", false), later(t.Context(), p, "a", "key", false)
		if got := has(other); got != balancer.ErrFull.Error() {
			t.Fatalf("two in a queue of one: %s", got)
		}
		must(t, p.Off("a"))
		if got := has(pinned); got != "backend a: backend lost" {
			t.Errorf("a pinned client: %s", got)
		}
		must(t, p.Undrain("a"))
		b.Begin()
		fresh := later(t.Context(), p, "", "", false)
		if a.Queued() != 1 || b.Queued() != 0 {
			t.Fatalf("%d wait at a, %d at b", a.Queued(), b.Queued())
		}
		must(t, p.Drain("a", 0)) // its clients stay, and new ones have to go when their turn comes
		a.End()
		if got := has(fresh); got != "waits" || b.Queued() != 1 {
			t.Errorf("%d wait at b", b.Queued())
		}
		if a.InFlight() != 0 {
			t.Errorf("%d in flight at a", a.InFlight())
		}
		for range 3 {
			b.End()
		}
		if got := has(fresh); got != "b" {
			t.Errorf("a new client: %s", got)
		}
	})
}

// A client sticks to its group while that is full, and a new one goes to a group with room.
func TestLimitInGroups(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := versions(t, &balancer.Options{Limit: &balancer.Limit{Requests: 2, Queue: 1}})
		must(t, p.SetShares(map[string]int{"stable": 1, "canary": 1000}))
		must(t, p.Remove("c1"))
		for range 2 {
			acquire(t, p, "canary", "")
		}
		for _, key := range []string{"", "key"} {
			if b := acquire(t, p, "", key); b.Group() != "stable" {
				t.Errorf("a new client goes to %s, which is full", b.ID())
			}
		}
		moved := later(t.Context(), p, "c1", "", false)
		if got := has(moved); got != "waits" {
			t.Errorf("a canary's client: %s", got)
		}
		p.Get("canary").End()
		if got := has(moved); got != "canary" {
			t.Errorf("a canary's client: %s", got)
		}
	})
}

// Whatever comes and goes at once, no backend has more than it may, and nobody is forgotten.
func TestLimitUnderConcurrency(t *testing.T) {
	t.Parallel()
	p := newPool(t, &balancer.Options{Limit: &balancer.Limit{Requests: 3, Queue: 100, Wait: time.Minute}}, "a", "b")
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			for n := range 200 {
				home := []string{"", "a", "b"}[(i+n)%3]
				ctx, cancel := context.WithCancel(t.Context())
				if n%5 == 0 {
					go cancel()
				}
				b, err := p.Acquire(ctx, nil, home, "", false)
				cancel()
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					continue
				}
				if n := b.InFlight(); n > 3 {
					t.Errorf("%s has %d", b.ID(), n)
				}
				b.End()
			}
		})
	}
	wg.Wait()
	for b := range p.All() {
		if b.InFlight() != 0 || b.Queued() != 0 || b.Refused() != 0 {
			t.Errorf("%s: %d in flight, %d wait, %d refused", b.ID(), b.InFlight(), b.Queued(), b.Refused())
		}
		for range 3 {
			if acquire(t, p, b.ID(), "") != b {
				t.Errorf("a place of %s was lost", b.ID())
			}
		}
	}
}

func TestLimitIsJudged(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		limit balancer.Limit
		ok    bool
	}{
		{balancer.Limit{}, true},
		{balancer.Limit{Requests: 1}, true},
		{balancer.Limit{Tunnels: 1, Queue: -1}, true},
		{balancer.Limit{Requests: -1}, false},
		{balancer.Limit{Tunnels: -1}, false},
		{balancer.Limit{Queue: 10}, false},
		{balancer.Limit{Requests: 1, Wait: -1}, false},
		{balancer.Limit{Requests: 1, Wait: 5}, false},
	} {
		if _, err := balancer.NewPool(&balancer.Options{Limit: &tt.limit}); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt.limit, err)
		}
	}
}

func TestAcquireAllocatesNothing(t *testing.T) {
	for _, limit := range []*balancer.Limit{nil, {Requests: 10, Tunnels: 10}} {
		p := newPool(t, &balancer.Options{Limit: limit}, "a", "b", "c")
		ctx := t.Context()
		if n := testing.AllocsPerRun(100, func() {
			for _, home := range []string{"", "a"} {
				b, _ := p.Acquire(ctx, nil, home, "", false)
				b.End()
				b, _ = p.Acquire(ctx, nil, home, "key", true)
				b.EndTunnel()
			}
		}); n != 0 {
			t.Errorf("%+v: %v allocations", limit, n)
		}
	}
}

func BenchmarkAcquire(b *testing.B) {
	for name, limit := range map[string]*balancer.Limit{"without a limit": nil, "with a limit": {Requests: 1000}} {
		p := newPool(b, &balancer.Options{Limit: limit}, "node-1", "node-2", "node-3")
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				at, _ := p.Acquire(b.Context(), nil, "node-1", "client", false)
				at.End()
			}
		})
	}
}

// Those who wait at a backend that takes them no more are judged anew at once, also when the
// half rule keeps its Lost open.
func TestLimitWakes(t *testing.T) {
	for name, goes := range map[string]func(*testing.T, *balancer.Pool, *fleet){
		"down by the half rule": func(_ *testing.T, _ *balancer.Pool, f *fleet) { f.set("hung", "b"); sleep(3 * time.Second) },
		"drained":               func(t *testing.T, p *balancer.Pool, _ *fleet) { must(t, p.Drain("b", 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, balancer.Options{Picker: &balancer.LeastConn{}, Limit: &balancer.Limit{Requests: 1, Tunnels: 1, Queue: 3, Wait: time.Minute}}, []string{"a", "b", "c"}, func(t *testing.T, p *balancer.Pool, f *fleet, _ *log) {
				f.set("hung", "a")
				sleep(3 * time.Second)
				b, c := p.Get("b"), p.Get("c")
				for _, full := range []*balancer.Backend{b, c, c, c} { // c's load is greater
					full.Begin()
					full.BeginTunnel()
				}
				pinned := later(t.Context(), p, "b", "", false)
				request, tunnel := later(t.Context(), p, "", "", false), later(t.Context(), p, "", "", true)
				if b.Queued() != 3 {
					t.Fatalf("%d wait at b", b.Queued())
				}
				goes(t, p, f)
				want := "waits"
				if b.State() == balancer.Down {
					want = "backend b: backend lost"
				}
				if got := has(pinned); got != want || closed(b.Lost()) || c.Queued() != 2 {
					t.Errorf("its client: %s, want %s; %d wait at c", got, want, c.Queued())
				}
				for range 3 {
					c.End()
					c.EndTunnel()
				}
				if got := has(request) + has(tunnel); got != "cc" {
					t.Errorf("new clients: %s", got)
				}
				b.End()
				b.EndTunnel()
				if want == "waits" && has(pinned) == "b" {
					b.End()
				}
				c.End()
				c.EndTunnel()
				for _, b := range []*balancer.Backend{b, c} {
					if b.InFlight() != 0 || b.Queued() != 0 {
						t.Errorf("%s: %d in flight, %d wait", b.ID(), b.InFlight(), b.Queued())
					}
				}
			})
		})
	}
}
