package middleware_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	limpet "github.com/limpet-go/limpet/middleware"
)

// link is a replica's way to a bus that can be cut.
type link struct {
	bus.Bus
	cut  atomic.Bool
	deaf atomic.Bool // cut in one direction
	mute bool        // a cut is not told
}

func (l *link) Publish(ctx context.Context, topic string, data []byte) error {
	if l.cut.Load() {
		return errors.New("cut")
	}
	return l.Bus.Publish(ctx, topic, data)
}

func (l *link) Subscribe(ctx context.Context, topics ...string) (bus.Subscription, error) {
	sub, err := l.Bus.Subscribe(ctx, topics...)
	return &linked{Subscription: sub, link: l}, err
}

type linked struct {
	bus.Subscription
	link *link
	lost bool
}

func (s *linked) Next(ctx context.Context) (bus.Message, error) {
	for {
		m, err := s.Subscription.Next(ctx)
		switch {
		case err != nil:
			return m, err
		case s.link.cut.Load() || s.link.deaf.Load():
			s.lost = true
		case s.lost && !s.link.mute:
			s.lost = false
			return bus.Message{}, &bus.Gap{Lost: -1, Err: errors.New("was cut")}
		default:
			return m, nil
		}
	}
}

// fleet is some replicas on one bus in memory.
type fleet struct {
	t     *testing.T
	bus   *bus.Memory
	pools []*balancer.Pool
	links []*link
	stops []func()
	told  atomic.Int64 // messages on the bus
}

func newFleet(t *testing.T, n int) *fleet {
	f := &fleet{t: t, bus: &bus.Memory{}}
	sub, err := f.bus.Subscribe(t.Context(), "limpet:gateway")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := sub.Next(context.Background()); err != nil {
				return
			}
			f.told.Add(1)
		}
	}()
	t.Cleanup(func() {
		sub.Close()
		<-ended
	})
	for range n {
		f.start(nil, "a", "b", "c")
	}
	f.settle()
	return f
}

// start starts a replica.
func (f *fleet) start(opts *balancer.Options, backends ...string) *balancer.Pool {
	f.t.Helper()
	if opts == nil {
		opts = &balancer.Options{}
	}
	opts.Logger = slog.New(slog.DiscardHandler)
	pool, err := balancer.NewPool(opts)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, id := range backends {
		add(f.t, pool, id)
	}
	l := &link{Bus: f.bus}
	gw := newGateway(f.t, pool, &limpet.Options{Bus: l})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- gw.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			f.t.Error(err)
		}
	})
	f.pools, f.links, f.stops = append(f.pools, pool), append(f.links, l), append(f.stops, cancel)
	return pool
}

func add(t *testing.T, pool *balancer.Pool, id string) {
	t.Helper()
	b, err := balancer.NewBackend(id, "http://127.0.0.1:1", 0)
	if err == nil {
		err = pool.Add(b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// settle gives the replicas the time to tell what they have to tell.
func (f *fleet) settle() {
	synctest.Wait()
	time.Sleep(1200 * time.Millisecond)
	synctest.Wait()
}

// want waits for the replicas to agree on the states of a, b and so on.
func (f *fleet) want(states ...balancer.State) {
	f.t.Helper()
	f.settle()
	for i, pool := range f.pools {
		for j, want := range states {
			id := string(rune('a' + j))
			if b := pool.Get(id); b != nil && b.State() != want {
				f.t.Errorf("replica %d has %s %v, want %v", i, id, b.State(), want)
			}
		}
	}
}

// say publishes a note as some replica would.
func (f *fleet) say(from, decisions string) {
	f.t.Helper()
	note := fmt.Sprintf(`{"v":1,"from":%q,"decisions":[%s]}`, from, decisions)
	if !json.Valid([]byte(note)) {
		f.t.Fatal(note)
	}
	if err := f.bus.Publish(f.t.Context(), "limpet:gateway", []byte(note)); err != nil {
		f.t.Fatal(err)
	}
}

const up, draining, down = balancer.Up, balancer.Draining, balancer.Down

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReplicas(t *testing.T) {
	for _, tt := range []struct {
		name string
		test func(t *testing.T, f *fleet)
	}{
		{"decisions travel", func(t *testing.T, f *fleet) {
			ok(t, f.pools[0].Drain("a", time.Minute))
			ok(t, f.pools[1].Off("b"))
			f.want(draining, down, up)
			start := f.pools[0].Get("a").Wish().Since
			for i, pool := range f.pools {
				if w := pool.Get("a").Wish(); w.State != draining || w.Within != time.Minute || !w.Since.Equal(start) {
					t.Errorf("replica %d has the wish %+v, want a drain since %v", i, w, start)
				}
			}
			time.Sleep(time.Until(start.Add(time.Minute - time.Millisecond)))
			f.pools[0].Get("a").Keeps("")
			f.want(down, down, up)
			ok(t, f.pools[2].Undrain("a"))
			ok(t, f.pools[2].Undrain("b"))
			f.want(up, up, up)
			ok(t, f.pools[0].Off("a")) // the same again, by another
			ok(t, f.pools[1].Off("a"))
			f.want(down, up, up)
		}},
		{"a weight outlives a drain elsewhere", func(t *testing.T, f *fleet) {
			weights := func(want int) {
				t.Helper()
				f.settle()
				for i, pool := range f.pools {
					if w := pool.Get("a").Weight(); w != want {
						t.Errorf("replica %d has weight %d, want %d", i, w, want)
					}
				}
			}
			ok(t, f.pools[0].SetWeight("a", 3))
			weights(3)
			ok(t, f.pools[1].Drain("a", time.Minute))
			f.want(draining, up, up)
			start := f.pools[2].Get("a").Wish().Since
			time.Sleep(20 * time.Second)
			ok(t, f.pools[2].SetWeight("a", 5)) // which doesn't begin the drain anew
			weights(5)
			time.Sleep(time.Until(start.Add(time.Minute - time.Millisecond)))
			f.want(down, up, up)
			ok(t, f.pools[1].Undrain("a"))
			f.want(up, up, up)
			weights(5)
			ok(t, f.pools[1].SetWeight("a", 0))
			weights(1)
		}},
		{"shares travel, and a replica that starts later gets them", func(t *testing.T, f *fleet) {
			shares := func(want map[string]int) {
				t.Helper()
				f.settle()
				for i, pool := range f.pools {
					if got := pool.Shares(); !maps.Equal(got, want) {
						t.Errorf("replica %d has the shares %v, want %v", i, got, want)
					}
				}
			}
			before := f.told.Load()
			ok(t, f.pools[0].SetShares(map[string]int{"stable": 99, "canary": 1}))
			shares(map[string]int{"stable": 99, "canary": 1})
			if n := f.told.Load() - before; n != 1 {
				t.Errorf("%d messages for one decision", n)
			}
			late := f.start(nil, "a", "b")
			shares(map[string]int{"stable": 99, "canary": 1})
			ok(t, late.SetShares(map[string]int{"stable": 90, "canary": 10}))
			shares(map[string]int{"stable": 90, "canary": 10})
			f.links[3].cut.Store(true) // both sides decide: the later decision wins
			ok(t, late.SetShares(map[string]int{"stable": 1}))
			time.Sleep(time.Second)
			ok(t, f.pools[1].SetShares(map[string]int{"stable": 2}))
			time.Sleep(time.Minute)
			f.links[3].cut.Store(false)
			time.Sleep(16 * time.Second)
			shares(map[string]int{"stable": 2})
			f.say("x", "") // a replica of a version without shares
			for shares, at := range map[string]time.Time{`{"a b":1}`: time.Now().Add(time.Minute), `{"x":1}`: time.Now().Add(48 * time.Hour)} {
				note := fmt.Appendf(nil, `{"v":1,"from":"x","shares":{"shares":%s,"at":%d,"by":"x"}}`, shares, at.UnixMicro())
				ok(t, f.bus.Publish(t.Context(), "limpet:gateway", note))
			}
			shares(map[string]int{"stable": 2})
			ok(t, f.pools[2].SetShares(nil))
			shares(nil)
			before = f.told.Load()
			time.Sleep(10 * time.Minute)
			if n := f.told.Load() - before; n > 62 {
				t.Errorf("%d messages in ten minutes, want one in 10 to 15 s", n)
			}
		}},
		{"shares that are configured are no decision", func(t *testing.T, f *fleet) {
			pool, err := balancer.ParsePool(&balancer.Options{Logger: slog.New(slog.DiscardHandler)}, "a=http://127.0.0.1:1")
			ok(t, err)
			ok(t, pool.SetShares(map[string]int{"": 1}))
			ok(t, f.pools[0].SetShares(map[string]int{"stable": 1}))
			f.settle()
			gw := newGateway(t, pool, &limpet.Options{Bus: f.bus})
			ended := make(chan error, 1)
			ctx, cancel := context.WithCancel(t.Context())
			go func() { ended <- gw.Run(ctx) }()
			f.settle()
			cancel()
			ok(t, <-ended)
			for _, p := range append(f.pools, pool) {
				if got := p.Shares(); got["stable"] != 1 {
					t.Errorf("a replica that starts has changed the shares: %v", got)
				}
			}
		}},
		{"a replica starts later", func(t *testing.T, f *fleet) {
			ok(t, f.pools[0].Off("a"))
			ok(t, f.pools[1].Drain("b", time.Hour))
			f.settle()
			f.start(nil, "a", "b", "c")
			f.want(down, draining, up)
		}},
		{"one decision is one message", func(t *testing.T, f *fleet) {
			before := f.told.Load()
			ok(t, f.pools[0].Off("a"))
			f.settle()
			if n := f.told.Load() - before; n != 1 {
				t.Errorf("%d messages for one decision", n)
			}
			time.Sleep(10 * time.Minute)
			if n := f.told.Load() - before; n < 40 || n > 62 {
				t.Errorf("%d messages in ten minutes, want one in 10 to 15 s", n)
			}
		}},
		{"nothing to tell", func(t *testing.T, f *fleet) {
			before := f.told.Load()
			time.Sleep(time.Hour)
			if n := f.told.Load() - before; n != 0 {
				t.Errorf("%d messages about nothing", n)
			}
		}},
		{"health stays at home", func(t *testing.T, f *fleet) {
			sick := f.start(&balancer.Options{StartDown: true}, "a", "b", "c")
			ok(t, f.pools[0].Off("b"))
			ok(t, f.pools[0].Undrain("b"))
			time.Sleep(time.Minute)
			if sick.Get("b").State() != down {
				t.Error("an Undrain made a dead backend healthy")
			}
			f.pools = f.pools[:3]
			f.want(up, up, up)
		}},
		{"other backends", func(t *testing.T, f *fleet) {
			other := f.start(nil, "c", "d")
			ok(t, other.Off("d"))
			ok(t, other.Off("c"))
			ok(t, f.pools[0].Off("a"))
			f.want(down, up, down, down)
			add(t, f.pools[1], "d")
			add(t, other, "a")
			f.want(down, up, down, down)
			// What comes back is what it was before the decision, everywhere.
			ok(t, f.pools[1].Remove("c"))
			f.want(down, up, down, down)
			add(t, f.pools[1], "c")
			f.want(down, up, up, down)
			ok(t, f.pools[1].Remove("c"))
			ok(t, f.pools[0].Off("c")) // and what it isn't there for holds when it comes
			f.settle()
			add(t, f.pools[1], "c")
			f.want(down, up, down, down)
			ok(t, other.Undrain("d"))
			f.settle()
			add(t, f.pools[0], "d")
			ok(t, f.pools[0].Off("d"))
			f.want(down, up, down, down)
		}},
		{"a decision that changes nothing where it is made", func(t *testing.T, f *fleet) {
			f.links[0].cut.Store(true)
			f.links[1].cut.Store(true)
			ok(t, f.pools[0].Off("a"))
			time.Sleep(time.Millisecond)
			ok(t, f.pools[1].Undrain("a")) // which has never heard of the other
			f.links[0].cut.Store(false)
			f.links[1].cut.Store(false)
			f.want(up, up, up)
		}},
		{"what was just decided is later", func(t *testing.T, f *fleet) {
			for _, id := range []string{"a", "b", "c"} {
				ok(t, f.pools[0].Off(id))
				f.say("x", fmt.Sprintf(`{"backend":%q,"wish":"serve","since":"2026-01-02T15:04:05Z","at":1,"by":"x"}`, id))
				f.settle()
			}
			f.want(down, down, down)
		}},
		{"pools without anything in common", func(t *testing.T, f *fleet) {
			one, other := f.start(nil), f.start(nil)
			for i := range 300 {
				for _, p := range []struct {
					*balancer.Pool
					id string
				}{{one, fmt.Sprint("one-", i)}, {other, fmt.Sprint("other-", i)}} {
					add(t, p.Pool, p.id)
					ok(t, p.Off(p.id))
				}
			}
			before := f.told.Load()
			time.Sleep(10 * time.Second)
			if n := f.told.Load() - before; n > 6*10 {
				t.Errorf("%d messages in ten seconds", n)
			}
			ok(t, other.Off("other-0"))
			f.want(up, up, up)
		}},
		{"too many other backends", func(t *testing.T, f *fleet) {
			ok(t, f.pools[0].Off("a"))
			f.settle()
			var many []string
			for i := range 400 {
				many = append(many, fmt.Sprintf(`{"backend":"x%d","wish":"off","since":"2026-01-02T15:04:05Z","at":%d,"by":"z"}`, i, i+1))
			}
			before := f.told.Load()
			f.say("z", strings.Join(many, ","))
			f.want(down, up, up)
			time.Sleep(time.Minute)
			if n := f.told.Load() - before; n > 20 {
				t.Errorf("%d messages in a minute", n)
			}
			add(t, f.pools[0], "x0")
			add(t, f.pools[0], "x399")
			f.settle()
			if first, last := f.pools[0].Get("x0").State(), f.pools[0].Get("x399").State(); first != up || last != down {
				t.Errorf("the first of many is %v, the last %v, want only the last remembered", first, last)
			}
		}},
		{"a clock that nobody can follow", func(t *testing.T, f *fleet) {
			for _, at := range []int64{1<<60 - 1, math.MaxInt64, time.Now().Add(25 * time.Hour).UnixMicro()} {
				f.say("x", fmt.Sprintf(`{"backend":"a","wish":"off","since":"2026-01-02T15:04:05Z","at":%d,"by":"x"}`, at))
				f.want(up, up, up)
				ok(t, f.pools[0].Off("a"))
				f.want(down, up, up)
				ok(t, f.pools[1].Undrain("a"))
				f.want(up, up, up)
			}
			before := f.told.Load()
			time.Sleep(time.Minute)
			if n := f.told.Load() - before; n > 10 {
				t.Errorf("%d messages in a minute", n)
			}
		}},
		{"the last word", func(t *testing.T, f *fleet) {
			ok(t, f.pools[0].Off("a"))
			f.stops[0]()
			f.want(down, up, up)
		}},
		{"too many of one moment", func(t *testing.T, f *fleet) {
			var many []string
			for i := range 400 {
				many = append(many, fmt.Sprintf(`{"backend":"x%d","wish":"off","since":"2026-01-02T15:04:05Z","at":9,"by":"z"}`, i))
			}
			f.say("z", strings.Join(many, ","))
			f.settle()
			before := f.told.Load()
			time.Sleep(time.Minute)
			if n := f.told.Load() - before; n > 10 {
				t.Errorf("%d messages in a minute", n)
			}
		}},
		{"ties and clocks", func(t *testing.T, f *fleet) {
			at := time.Now().Add(23 * time.Hour).UnixMicro()
			f.say("x", fmt.Sprintf(`{"backend":"a","wish":"off","since":"2026-01-02T15:04:05Z","at":%d,"by":"x"}`, at))
			f.say("y", fmt.Sprintf(`{"backend":"a","wish":"serve","since":"2026-01-02T15:04:05Z","at":%d,"by":"y"},{"backend":"b","wish":"off","since":"2026-01-02T15:04:05Z","at":%d,"by":"y"}`, at, at))
			f.say("x", fmt.Sprintf(`{"backend":"b","wish":"serve","since":"2026-01-02T15:04:05Z","at":%d,"by":"x"},{"backend":"c","wish":"off","since":"2026-01-02T15:04:05Z","at":1,"by":"x"}`, at))
			f.want(up, down, down)
			ok(t, f.pools[0].Off("a")) // later than all it has heard of
			ok(t, f.pools[1].Undrain("b"))
			ok(t, f.pools[2].Undrain("c"))
			f.want(down, up, up)
		}},
		{"nonsense", func(t *testing.T, f *fleet) {
			for _, s := range []string{
				`{"backend":"a","wish":"explode","since":"2026-01-02T15:04:05Z","at":9,"by":"x"}`, `{"backend":"a","wish":"off","since":"2026-01-02T15:04:05Z","at":0,"by":"x"}`,
				`{"backend":"a","wish":"off","since":"2026-01-02T15:04:05Z","at":9}`,
				`{"backend":"a","wish":"drain","within":-1,"since":"2026-01-01T00:00:00Z","at":9,"by":"x"}`,
				`{"backend":"a","wish":"drain","weight":-1,"since":"2026-01-02T15:04:05Z","at":9,"by":"x"}`, `{"backend":"a","wish":"off","weight":1000001,"since":"2026-01-02T15:04:05Z","at":9,"by":"x"}`,
				`{"backend":"a","wish":"drain","within":1,"at":9,"by":"x"}`, `{"backend":"a","wish":"off","since":"2026-01-02T15:04:05Z","within":1,"at":9,"by":"x"}`, `7`, `null`,
			} {
				f.say("x", s)
			}
			for _, s := range []string{"", "{", "null", "7", `{"v":2,"from":"x","decisions":[{"backend":"a","wish":"off","since":"2026-01-02T15:04:05Z","at":9,"by":"x"}]}`} {
				ok(t, f.bus.Publish(t.Context(), "limpet:gateway", []byte(s)))
			}
			f.want(up, up, up)
			f.say("x", `{"backend":"c","wish":"explode","since":"2026-01-02T15:04:05Z","at":9,"by":"x"},{"backend":"b","wish":"off","since":"2026-01-02T15:04:05Z","at":9,"by":"x"}`)
			f.want(up, down, up) // one that makes sense counts all the same
		}},
		{"a gap", func(t *testing.T, f *fleet) {
			f.links[0].deaf.Store(true)
			ok(t, f.pools[1].Off("a"))
			f.settle()
			f.links[0].deaf.Store(false)
			ok(t, f.bus.Publish(t.Context(), "limpet:gateway", nil)) // the Gap comes before it
			f.want(down, up, up)
		}},
		{"the bus is away", func(t *testing.T, f *fleet) {
			f.links[0].cut.Store(true)
			ok(t, f.pools[0].Off("a"))
			time.Sleep(time.Minute)
			f.links[0].cut.Store(false)
			time.Sleep(2 * time.Second)
			f.want(down, up, up)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { tt.test(t, newFleet(t, 3)) })
		})
	}
}

// A partition ends with the last decision about each backend on all replicas,
// whether the bus has told of it or not.
func TestReplicasAfterPartition(t *testing.T) {
	for _, mute := range []bool{false, true} {
		t.Run(fmt.Sprintf("mute %v", mute), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 4)
				far, near := f.pools[3], f.pools[0]
				f.links[3].mute = mute
				f.links[3].cut.Store(true)
				for _, step := range []error{
					far.Off("a"), far.Off("b"), near.Drain("a", time.Second), near.Off("c"),
				} {
					ok(t, step)
					time.Sleep(time.Second)
				}
				ok(t, near.Undrain("a"))
				time.Sleep(time.Minute)
				f.pools = []*balancer.Pool{near, f.pools[1], f.pools[2]}
				f.want(up, up, down)
				if far.Get("a").State() != down || far.Get("c").State() != up {
					t.Error("what was decided beyond the cut is known here")
				}
				f.links[3].cut.Store(false)
				if mute {
					time.Sleep(16 * time.Second)
				} else {
					ok(t, f.bus.Publish(t.Context(), "limpet:gateway", nil)) // for the Gap
				}
				f.pools = append(f.pools, far)
				f.want(up, down, down)
				time.Sleep(10 * time.Minute)
				f.want(up, down, down)
			})
		})
	}
}
