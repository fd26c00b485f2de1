package hub_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

func newHub(t testing.TB, b bus.Bus, opts *hub.Options) *hub.Hub {
	t.Helper()
	h, err := hub.New(b, opts)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// startHub runs a hub until the end of the test.
func startHub(t testing.TB, b bus.Bus, opts *hub.Options) *hub.Hub {
	t.Helper()
	h := newHub(t, b, opts)
	stop := runHub(t, h)
	t.Cleanup(func() { stop() })
	return h
}

// runHub runs a hub until stop, which may be called again.
func runHub(t testing.TB, h *hub.Hub) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background()) // t.Context() ends before Cleanup
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// conn is a member's connection that keeps what it is given.
type conn struct {
	stuck chan struct{} // Send waits for it, if there is one

	mu     sync.Mutex
	got    []string
	code   int // 0 as long as it isn't closed
	reason string
	after  bool // Send was called behind Close
}

func (c *conn) Send(ctx context.Context, messages []*hub.Frame) error {
	if c.stuck != nil {
		select {
		case <-c.stuck:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.after = c.after || c.code != 0
	for _, f := range messages {
		c.got = append(c.got, string(f.Payload()))
	}
	return nil
}

func (c *conn) Close(_ context.Context, code int, reason string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.after = c.after || c.code != 0
	c.code, c.reason = code, reason
	return nil
}

// take returns what has come since it was last called.
func (c *conn) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.got
	c.got = nil
	return got
}

// closed returns the code and the reason of the close; the code is 0 before it.
func (c *conn) closed() (int, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.code, c.reason
}

// connect makes a new conn a member.
func connect(t testing.TB, h *hub.Hub, id string, rooms ...string) (*hub.Member, *conn) {
	t.Helper()
	c := &conn{}
	return connectConn(t, h, c, id, rooms...), c
}

func connectConn(t testing.TB, h *hub.Hub, c hub.Conn, id string, rooms ...string) *hub.Member {
	t.Helper()
	m, err := h.Connect(context.Background(), c, hub.MemberOptions{ID: id, Rooms: rooms})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func send(t testing.TB, h *hub.Hub, who hub.Who, text string) {
	t.Helper()
	if err := h.Send(context.Background(), who, hub.Text([]byte(text))); err != nil {
		t.Fatal(err)
	}
}

func inRooms(rooms ...string) hub.Who { return hub.Who{Rooms: rooms} }

// faulty is a Memory with the faults of networks.
type faulty struct {
	bus.Memory
	mu      sync.Mutex
	away    bool          // Publish and Add fail, and nothing is delivered
	slow    time.Duration // that Add takes
	mixed   bool          // topics overtake each other, publishers too
	lossy   bool          // every fifth message is lost
	mute    bool          // nothing is delivered, in silence
	subs    []*faultySub
	all     bool                   // back tells of a gap of all topics
	queues  map[string]chan []byte // of a mixed bus, by topic
	carries sync.WaitGroup
}

var errAway = errors.New("the bus is away")

func (f *faulty) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *faulty) Publish(ctx context.Context, topic string, data []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.away:
		return errAway
	case f.mute || f.lossy && rand.IntN(5) == 0:
		return nil
	case !f.mixed:
		return f.Memory.Publish(ctx, topic, data)
	}
	q := f.queues[topic]
	if q == nil {
		if f.queues == nil {
			f.queues = make(map[string]chan []byte)
		}
		q = make(chan []byte, 10_000)
		f.queues[topic] = q
		f.carries.Go(func() {
			for data := range q {
				time.Sleep(rand.N(3 * time.Millisecond)) // in a synctest bubble
				_ = f.Memory.Publish(context.Background(), topic, data)
			}
		})
	}
	q <- slices.Clone(data)
	return nil
}

// settle ends the deliveries of a mixed bus when they are done.
func (f *faulty) settle() {
	f.set(func() {
		f.mixed = false
		for _, q := range f.queues {
			close(q)
		}
	})
	f.carries.Wait()
}

func (f *faulty) Subscribe(ctx context.Context, topics ...string) (bus.Subscription, error) {
	inner, err := f.Memory.Subscribe(ctx, topics...)
	if err != nil {
		return nil, err
	}
	s := &faultySub{Subscription: inner, bus: f, gaps: make(chan *bus.Gap, 1), topics: make(map[string]bool)}
	f.set(func() { f.subs = append(f.subs, s) })
	return s, nil
}

// back ends an absence: topics that had to wait are subscribed to, and each
// subscription is told that it may have missed something.
func (f *faulty) back() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = false
	for _, s := range f.subs {
		_ = s.Subscription.Add(context.Background(), s.wanted...)
		gap := &bus.Gap{Lost: -1, Topics: s.wanted, Err: errAway}
		if f.all {
			gap.Topics = nil
		}
		s.gaps <- gap
		s.wanted = nil
		_ = f.Memory.Publish(context.Background(), "wake", nil)
	}
}

type faultySub struct {
	bus.Subscription
	bus    *faulty
	wanted []string
	topics map[string]bool
	gaps   chan *bus.Gap
	woken  bool
}

func (s *faultySub) Next(ctx context.Context) (bus.Message, error) {
	if !s.woken {
		s.woken = true
		if err := s.Subscription.Add(ctx, "wake"); err != nil {
			return bus.Message{}, err
		}
	}
	for {
		msg, err := s.Subscription.Next(ctx)
		if err == nil && msg.Topic == "wake" {
			select {
			case gap := <-s.gaps:
				return bus.Message{}, gap
			default:
				continue
			}
		}
		return msg, err
	}
}

func (s *faultySub) Add(ctx context.Context, topics ...string) error {
	var slow time.Duration
	away := false
	s.bus.set(func() {
		if slow, away = s.bus.slow, s.bus.away; away {
			s.wanted = append(s.wanted, topics...)
		}
	})
	if away {
		return errAway
	}
	time.Sleep(slow)
	s.bus.set(func() {
		for _, topic := range topics {
			s.topics[topic] = true
		}
	})
	return s.Subscription.Add(ctx, topics...)
}

func (s *faultySub) Remove(ctx context.Context, topics ...string) error {
	s.bus.set(func() {
		for _, topic := range topics {
			delete(s.topics, topic)
		}
	})
	return s.Subscription.Remove(ctx, topics...)
}

// single is the bus of one hub, with faults of its own.
type single struct {
	bus.Bus
	mute  atomic.Bool // what it publishes is lost, in silence, as if its process had been killed
	fails atomic.Bool // Publish fails
	deaf  atomic.Bool // nothing is delivered to it
}

func (s *single) Publish(ctx context.Context, topic string, data []byte) error {
	switch {
	case s.fails.Load():
		return errAway
	case s.mute.Load():
		return nil
	}
	return s.Bus.Publish(ctx, topic, data)
}

func (s *single) Subscribe(ctx context.Context, topics ...string) (bus.Subscription, error) {
	sub, err := s.Bus.Subscribe(ctx, topics...)
	return &singleSub{sub, s}, err
}

type singleSub struct {
	bus.Subscription
	bus *single
}

func (s *singleSub) Next(ctx context.Context) (bus.Message, error) {
	for {
		if m, err := s.Subscription.Next(ctx); err != nil || !s.bus.deaf.Load() {
			return m, err
		}
	}
}
