package hub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// leaky is a Memory whose subscriptions lose one of twenty messages to rooms.
type leaky struct{ bus.Memory }

func (l *leaky) Subscribe(ctx context.Context, topics ...string) (bus.Subscription, error) {
	sub, err := l.Memory.Subscribe(ctx, topics...)
	return leakySub{sub}, err
}

type leakySub struct{ bus.Subscription }

func (s leakySub) Next(ctx context.Context) (bus.Message, error) {
	m, err := s.Subscription.Next(ctx)
	if strings.Contains(m.Topic, ":room:") && rand.IntN(20) == 0 {
		return bus.Message{}, &bus.Gap{Lost: 1, Topics: []string{m.Topic}}
	}
	return m, err
}

// Whatever happens to the bus and to connections, a member gets each message once and in
// the order of the history, as long as that has it.
func TestRecoverEverything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &leaky{bus.Memory{History: 100_000}}
		opts := &hub.Options{Recover: 100_000, QueueMessages: 10, Gap: func(hub.Who, *bus.Gap) {}}
		nodes := []*hub.Hub{startHub(t, memory, opts), startHub(t, memory, opts)}
		_, other := connect(t, nodes[0], "", "a")
		var guests []*guest
		for i := range 10 {
			g := newGuest()
			g.come(t, nodes[i%2], "a", "b")
			guests = append(guests, g)
		}
		synctest.Wait()
		var all sync.WaitGroup
		for _, g := range guests {
			all.Go(func() {
				for i := range 30 {
					time.Sleep(rand.N(30 * time.Millisecond))
					g.leave()
					time.Sleep(rand.N(50 * time.Millisecond))
					g.come(t, nodes[i%2], "b", "a")
				}
			})
		}
		for i := range 4 {
			all.Go(func() {
				for n := range 300 {
					for range rand.N(3) {
						send(t, nodes[i%2], inRooms([]string{"a", "b"}[n%2]), fmt.Sprint(i, n))
					}
					time.Sleep(rand.N(4 * time.Millisecond))
				}
			})
		}
		all.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(other.take()) == 0 || nodes[0].Stats().Gaps == 0 {
			t.Error("nothing was missing")
		}
		for _, room := range []string{"a", "b"} {
			list, err := memory.Last(t.Context(), "hub:room:"+room, 100_000)
			if err != nil {
				t.Fatal(err)
			}
			for i, g := range guests {
				want := len(list) - 1 // the first one is the node's
				if got := len(g.got[room]); got != want {
					t.Errorf("guest %d got %d messages to %s, want %d", i, got, room, want)
				}
				if !slices.Equal(g.got[room], guests[0].got[room]) {
					t.Errorf("guest %d has got other messages to %s than the first one, or in another order", i, room)
				}
				if slices.ContainsFunc(g.told, func(what string) bool { return what[:6] == "missed" }) {
					t.Errorf("guest %d was told %q", i, g.told)
				}
			}
		}
	})
}

// A member that is slow isn't closed: it gets what doesn't fit into its queue once it can.
func TestRecoverSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil, &hub.Options{Recover: 1000, QueueMessages: 10, DropOldest: true})
		g := newGuest()
		g.come(t, h, "room")
		synctest.Wait()
		g.stuck = make(chan struct{})
		count(t, h, "room", 1, 500)
		synctest.Wait()
		close(g.stuck)
		synctest.Wait()
		wantEqual(t, "got", g.heard("room"), numbers(1, 500))

		g.stuck = make(chan struct{}) // what is sent to it alone has no history
		for range 12 {
			g.member.Send(hub.Text(nil))
			synctest.Wait()
		}
		close(g.stuck)
		synctest.Wait()
		if g.code != 1013 || h.Stats().Slow != 1 {
			t.Errorf("closed with %d, %+v", g.code, h.Stats())
		}
	})
}

// What a message says about who gets it holds for who gets it later, too.
func TestRecoverWho(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil, &hub.Options{Recover: 1000})
		connect(t, h, "", "one", "two", "three")
		g := newGuest()
		g.come(t, h, "one", "two")
		synctest.Wait()
		g.events()
		to := func() {
			for i, who := range []hub.Who{
				{Rooms: []string{"one"}},
				{Rooms: []string{"one", "two"}, IDs: []string{"guest"}},
				{Rooms: []string{"one", "three"}, ExceptIDs: []string{"guest"}},
				{Rooms: []string{"two"}, ExceptRooms: []string{"one"}},
				{Rooms: []string{"two", "three"}},
			} {
				send(t, h, who, fmt.Sprint(i))
			}
			synctest.Wait()
		}
		to()
		g.leave()
		synctest.Wait()
		where := g.position("two")
		to()
		g.come(t, h, "two", "one")
		synctest.Wait()
		wantEqual(t, "one", g.heard("one"), []string{"0", "1", "0", "1"})
		wantEqual(t, "two", g.heard("two"), []string{"4", "4"})
		if g.position("two") == where {
			t.Error("the position stands still")
		}
		for _, who := range []hub.Who{{All: true}, {IDs: []string{"guest"}}, {Rooms: []string{"one"}, Local: true}} {
			if err := h.Send(t.Context(), who, hub.Binary([]byte("\n\xff"))); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		wantEqual(t, "without a position", append(g.heard(""), g.heard("one")...), []string{"\n\xff", "\n\xff", "\n\xff"})
	})
}

// All nodes hear the messages to a room in one order, whoever sends them.
func TestRecoverOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &bus.Memory{History: 10}
		var nodes []*hub.Hub
		var conns []*conn
		for range 3 {
			h := startHub(t, memory, &hub.Options{Recover: 10})
			_, c := connect(t, h, "", "room")
			nodes, conns = append(nodes, h), append(conns, c)
		}
		var sending sync.WaitGroup
		for i, h := range nodes {
			sending.Go(func() { count(t, h, "room", i*100, i*100+99) })
		}
		sending.Wait()
		_ = nodes[0].Disconnect(t.Context(), inRooms("room"), 4000, "") // behind all that was sent before
		synctest.Wait()
		first := conns[0].take()
		for _, c := range conns {
			if code, _ := c.closed(); code != 4000 {
				t.Errorf("closed with %d", code)
			}
			if got := c.take(); c != conns[0] && !slices.Equal(got, first) || len(first) != 300 {
				t.Errorf("got %d messages, the first one %d, or in another order", len(got), len(first))
			}
		}
	})
}

// readings is a Memory that counts what is read, and can't be read for a while.
type readings struct {
	bus.Memory
	after, last atomic.Int32
	away        atomic.Bool
}

func (r *readings) After(ctx context.Context, topic, id string, n int) ([]bus.Message, error) {
	r.after.Add(1)
	time.Sleep(10 * time.Millisecond)
	if r.away.Load() {
		return nil, errAway
	}
	return r.Memory.After(ctx, topic, id, n)
}

func (r *readings) Last(ctx context.Context, topic string, n int) ([]bus.Message, error) {
	r.last.Add(1)
	time.Sleep(10 * time.Millisecond)
	if r.away.Load() {
		return nil, errAway
	}
	return r.Memory.Last(ctx, topic, n)
}

// A crowd that comes back at once shares what is read, and waits for a history that can't be
// read.
func TestRecoverCrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &readings{Memory: bus.Memory{History: 10_000}}
		opts := &hub.Options{Recover: 10_000}
		here, there := startHub(t, memory, opts), startHub(t, memory, opts)
		guests := make([]*guest, 200)
		for i := range guests {
			guests[i] = newGuest()
			guests[i].come(t, here, "room")
		}
		count(t, there, "room", 1, 10)
		time.Sleep(time.Second)
		synctest.Wait()
		for i, g := range guests {
			g.leave()
			if i%20 == 0 { // some have heard a little more than others
				count(t, there, "room", 11+i/20, 11+i/20)
				synctest.Wait()
			}
		}
		count(t, there, "room", 21, 400)
		memory.last.Store(0)
		memory.after.Store(0)
		memory.away.Store(true)
		var coming sync.WaitGroup
		for _, g := range guests {
			coming.Go(func() { g.come(t, there, "room") })
		}
		coming.Wait()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, g := range guests {
			if len(g.told) != 1 {
				t.Fatalf("told %q while the history was away", g.told)
			}
		}
		failed := memory.last.Load()
		memory.away.Store(false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for i, g := range guests {
			if wantEqual(t, fmt.Sprint("guest ", i), g.heard("room"), numbers(1, 400)); t.Failed() {
				break
			}
		}
		pages, last := memory.after.Load(), memory.last.Load()-failed
		if pages > 50 || last > 5 || failed > 50 {
			t.Errorf("200 members have read %d pages and looked for the end %d times, %d times in vain", pages, last, failed)
		}
	})
}

// Positions that no message has yet are looked into together, and not by a page for each: a
// client can make them up.
func TestRecoverCrowdOfTheFuture(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &readings{Memory: bus.Memory{History: 1000}}
		h := startHub(t, memory, &hub.Options{Recover: 1000})
		g := newGuest()
		g.come(t, h, "room")
		count(t, h, "room", 1, 10)
		synctest.Wait()
		memory.after.Store(0)
		memory.last.Store(0)
		epoch, _, _ := strings.Cut(g.position("room"), "-")
		var coming sync.WaitGroup
		guests := make([]*guest, 200)
		for i := range guests {
			guests[i] = newGuest()
			guests[i].positions["room"] = fmt.Sprint(epoch, "-", 1000+i)
			coming.Go(func() { guests[i].come(t, h, "room") })
		}
		coming.Wait()
		time.Sleep(time.Second)
		for _, g := range guests {
			wantEqual(t, "told", g.events(), []string{"missed room", "joined room"})
		}
		if after, last := memory.after.Load(), memory.last.Load(); after > 0 || last > 2 {
			t.Errorf("%d pages were read, and %d times the newest message", after, last)
		}
	})
}

// A client that comes from a node which is ahead of this one has missed nothing.
func TestRecoverAhead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := &bus.Memory{History: 1000}
		lags := &single{Bus: memory}
		opts := &hub.Options{Recover: 1000}
		ahead, behind := startHub(t, memory, opts), startHub(t, lagging{memory, lags}, opts)
		connect(t, behind, "", "room")
		g := newGuest()
		g.come(t, ahead, "room")
		synctest.Wait()
		lags.deaf.Store(true)
		count(t, ahead, "room", 1, 10)
		synctest.Wait()
		g.leave()
		synctest.Wait()
		g.events()
		g.come(t, behind, "room")
		synctest.Wait()
		lags.deaf.Store(false)
		count(t, ahead, "room", 11, 20)
		time.Sleep(time.Second)
		wantEqual(t, "got", g.heard("room"), numbers(1, 20))
		wantEqual(t, "told", g.events(), []string{"recovered room"})
	})
}

// lagging is a Memory of which one node gets nothing for a while.
type lagging struct {
	*bus.Memory
	single *single
}

func (l lagging) Subscribe(ctx context.Context, topics ...string) (bus.Subscription, error) {
	return l.single.Subscribe(ctx, topics...)
}

// A hub says what it needs for Recover.
func TestRecoverNeeds(t *testing.T) {
	t.Parallel()
	for _, b := range []bus.Bus{&bus.Memory{}, struct{ bus.Bus }{&bus.Memory{History: 10}}} {
		if _, err := hub.New(b, &hub.Options{Recover: 10}); err == nil {
			t.Errorf("%T: no error", b)
		}
	}
	if _, err := hub.New(nil, &hub.Options{Recover: -1}); err == nil {
		t.Error("negative: no error")
	}
}
