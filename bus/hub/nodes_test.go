package hub_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// crowd is many hubs on one bus.
type crowd struct {
	faulty
	hubs  []*hub.Hub
	buses []*counted
	stops []func()
}

// startCrowd starts n hubs, of which only the first options count.
func startCrowd(t *testing.T, n, queue int, opts ...hub.Options) *crowd {
	o := hub.Options{}
	if len(opts) > 0 {
		o = opts[0]
	}
	o.Gap = func(hub.Who, *bus.Gap) {}
	c := &crowd{}
	c.Queue = queue
	for range n {
		b := &counted{single: single{Bus: &c.faulty}, gaps: make(chan *bus.Gap, 1<<16)}
		h := newHub(t, b, &o)
		b.hub = h
		c.hubs, c.buses, c.stops = append(c.hubs, h), append(c.buses, b), append(c.stops, runHub(t, h))
		synctest.Wait()
	}
	return c
}

// stop stops all hubs together, so that they don't hear all the byes.
func (c *crowd) stop() {
	c.set(func() { c.mute = true })
	var all sync.WaitGroup
	for _, stop := range c.stops {
		all.Go(stop)
	}
	all.Wait()
}

// most returns the greatest number of messages that a hub got since the last call.
func (c *crowd) most() (most int64) {
	for _, b := range c.buses {
		most = max(most, b.delivered.Swap(0))
	}
	return most
}

// fewest returns the smallest number of nodes that a hub knows.
func (c *crowd) fewest() int {
	fewest := c.hubs[0].Stats().Nodes
	for _, h := range c.hubs {
		fewest = min(fewest, h.Stats().Nodes)
	}
	return fewest
}

// breaks is what happens when the connection of all hubs breaks and is made anew.
func (c *crowd) breaks() {
	for _, h := range c.buses {
		h.gaps <- &bus.Gap{Lost: -1, Err: errAway}
	}
	synctest.Wait()
}

// counted is the bus of one hub of a crowd.
type counted struct {
	single
	hub       *hub.Hub
	delivered atomic.Int64 // messages
	overflown atomic.Int64 // the Gaps that are due to a full queue
	gaps      chan *bus.Gap
}

func (c *counted) Subscribe(ctx context.Context, topics ...string) (bus.Subscription, error) {
	sub, err := c.single.Subscribe(ctx, topics...)
	s := &countedSub{Subscription: sub, bus: c, next: make(chan bus.Message), closed: make(chan struct{})}
	go s.pump() // ends with Close
	return s, err
}

type countedSub struct {
	bus.Subscription
	bus    *counted
	next   chan bus.Message
	closed chan struct{}
}

func (s *countedSub) pump() {
	for {
		m, err := s.Subscription.Next(context.Background())
		if errors.Is(err, bus.ErrClosed) {
			return
		}
		var gap *bus.Gap
		if errors.As(err, &gap) {
			s.bus.overflown.Add(1)
			s.bus.gaps <- gap
			continue
		}
		select {
		case s.next <- m:
		case <-s.closed:
		}
	}
}

func (s *countedSub) Next(ctx context.Context) (bus.Message, error) {
	select {
	case m := <-s.next:
		s.bus.delivered.Add(1)
		return m, nil
	case gap := <-s.bus.gaps:
		return bus.Message{}, gap
	case <-ctx.Done():
		return bus.Message{}, ctx.Err()
	}
}

func (s *countedSub) Close() error {
	close(s.closed)
	return s.Subscription.Close()
}

// A connection that all nodes share, or that of Redis itself, breaks: they greet each
// other, and only who has asked is answered. A queue that is too short for that loses
// messages, and isn't filled with more for it.
func TestHubGreetings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		queue int
	}{
		{"long queues", 0},
		{"short queues", 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const nodes = 60
				c := startCrowd(t, nodes, tt.queue)
				defer c.stop()
				time.Sleep(time.Minute)
				for _, breaks := range []int{1, 5} {
					c.most()
					for range breaks {
						c.breaks()
					}
					time.Sleep(5 * time.Second) // a heartbeat
					if n := c.most(); n > 3*nodes {
						t.Errorf("the connection broke %d times: %d messages for one of %d nodes", breaks, n, nodes)
					}
					time.Sleep(time.Minute)
					if n := c.fewest(); n != nodes {
						t.Errorf("a node knows %d of %d", n, nodes)
					}
				}
				if n := c.buses[0].overflown.Load(); tt.queue == 0 && n > 0 {
					t.Errorf("a queue was full %d times", n)
				}
			})
		})
	}
}

// A node that doesn't answer makes only one call of Members wait, until it is heard again.
func TestHubMembersDoubtful(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &faulty{}
		opts := &hub.Options{Heartbeat: time.Hour}
		near := startHub(t, b, opts)
		startHub(t, b, opts)
		synctest.Wait()
		ask := func(answered int, took time.Duration) {
			t.Helper()
			start := time.Now()
			roster, err := near.Members(t.Context(), hub.Who{All: true})
			if err != nil || roster.Nodes != 2 || roster.Answered != answered || time.Since(start) != took {
				t.Errorf("%+v, %v after %v; want %d answers after %v", roster, err, time.Since(start), answered, took)
			}
		}
		ask(2, 0)
		b.set(func() { b.mute = true })
		hurried, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := near.Members(hurried, hub.Who{All: true}); err != nil {
			t.Error(err)
		}
		ask(1, 2*time.Second) // the call before didn't wait long enough to doubt it
		ask(1, 100*time.Millisecond)
		b.set(func() { b.mute = false })
		ask(2, 0)
		b.set(func() { b.mute = true })
		ask(1, 2*time.Second)
		ask(1, 100*time.Millisecond)
		b.set(func() { b.mute = false })
		time.Sleep(time.Hour) // a heartbeat comes
		b.set(func() { b.mute = true })
		ask(1, 2*time.Second)
	})
}

// waitingBus is a bus that waits when it is away.
type waitingBus struct {
	bus.Memory
	away atomic.Bool
}

func (p *waitingBus) Publish(ctx context.Context, topic string, data []byte) error {
	if !p.away.Load() {
		return p.Memory.Publish(ctx, topic, data)
	}
	select {
	case <-time.After(time.Minute):
		return errAway
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A bus that waits for a connection delays heartbeats, but not those who join for long.
func TestHubHeartbeatDelaysLittle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &waitingBus{}
		h := newHub(t, b, &hub.Options{Heartbeat: 5 * time.Second})
		stop := runHub(t, h)
		defer stop()
		synctest.Wait()
		b.away.Store(true)
		time.Sleep(5*time.Second + time.Millisecond) // Run tells that the node is there
		began := time.Now()
		connect(t, h, "ann", "lobby")
		if took := time.Since(began); took > time.Second {
			t.Errorf("a member joined after %v", took)
		}
		began = time.Now()
		stop()
		if took := time.Since(began); took > time.Second {
			t.Errorf("Run ended after %v", took)
		}
	})
}
