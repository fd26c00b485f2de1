package bus

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// HubOptions are a hub's. The zero value of each field is a good default.
type HubOptions struct {
	// Prefix of the hub's topics, "hub" by default. Hubs with the same prefix on
	// the same bus are one, its nodes.
	Prefix string

	// QueueBytes bounds what waits for a member whose connection is slow: 1 MiB by
	// default. A message counts as its payload, but as 64 bytes at least. One that
	// is larger than QueueBytes fits into an empty queue. It is a bound and not a
	// buffer: an empty queue takes no memory, and a message to many members is
	// kept once for all of them.
	QueueBytes int
	// QueueMessages bounds the number of messages that wait as well; 0 means that
	// only QueueBytes counts. With DropOldest and a QueueMessages of 1 a slow
	// member gets the newest message only, say of a position that changes often.
	QueueMessages int
	// DropOldest makes a member whose queue is full lose the oldest messages. By
	// default it is closed with 1013 (Try Again Later). [Hub.Stats] counts both.
	DropOldest bool

	// WriteTimeout is how long a Conn may take for what it is given at once, and
	// for closing: 5 s by default. A member that takes longer is cut.
	WriteTimeout time.Duration

	// Heartbeat is how often nodes tell each other that they are there: every 5 s
	// by default. One that isn't heard for three of them is forgotten. It is to
	// be the same on all nodes.
	Heartbeat time.Duration

	// Timeout is how long [Hub.Members] waits for the other nodes if its context
	// has no earlier deadline: 2 s by default.
	Timeout time.Duration

	// Joined and Left are called for each room that a member of this node enters
	// and leaves; when it ends, for all it was in. The calls for one member come
	// in order from its own goroutine: while one runs, nothing is written to it.
	// When hundreds are due, a room that was left as often as entered is skipped.
	Joined, Left func(m *Member, room string)

	// Node is called when another node is heard for the first time, and when it
	// has left or is forgotten. It must return soon, and not wait for a Join.
	Node func(id string, alive bool)

	// Gap is called when messages of other nodes are missing, or may be, to the
	// members of this node that who selects. It must return soon. Without it gaps
	// are logged.
	Gap func(who Who, gap *Gap)

	// Log is slog.Default() if nil.
	Log *slog.Logger
}

// A Hub keeps rooms of members, which are the connections of this process, and
// joins them over a bus to the rooms of all other hubs of its prefix. To this hub
// those are its nodes.
//
// Messages that one goroutine sends to one room, each after the last call has
// returned, reach each member of the room in that order. What is sent to all has
// an order of its own, and so has what is sent to an ID. How sure it is that a
// message reaches the other nodes is what the bus promises.
//
// A hub subscribes to a topic of its own, one for all nodes, and one for each
// room and each ID that has members here. A bus of [Streams] should have an Idle,
// or each of them that was ever published on stays in Redis.
//
// A slow member delays nobody: each has a queue of its own. Members have no
// goroutine while there is nothing to write.
//
// All methods may be called concurrently.
type Hub struct {
	bus  Bus
	opts HubOptions
	id   string

	rooms    rooms
	interest interest
	nodes    nodes
	asked    asked
	ran      atomic.Bool
	unrun    sync.Once // the warning that Run isn't called
	foreign  sync.Once // the warning of messages that make no sense
	refusing sync.Once // the warning that clients are refused

	mu     sync.RWMutex
	closed error          // ErrClosed once Run has ended, with its error
	open   sync.WaitGroup // members whose Conn isn't closed yet; grows under mu

	batches       sync.Pool // of *[]*Frame
	dropped, slow atomic.Int64
}

// NewHub returns a hub whose caller runs [Hub.Run]: before that it hears nothing
// of other nodes, and who joins waits. A nil bus is a Memory of its own: the hub
// is alone.
//
// It returns an error if the bus has a method Validate that does, as [Redis] and
// [Streams] have, and for negative options.
func NewHub(bus Bus, opts *HubOptions) (*Hub, error) {
	h := &Hub{bus: bus, id: rand.Text()}
	if bus == nil {
		h.bus = &Memory{}
	}
	if v, ok := h.bus.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return nil, fmt.Errorf("bus: hub: %w", err)
		}
	}
	if opts != nil {
		h.opts = *opts
	}
	o := &h.opts
	if min(o.QueueBytes, o.QueueMessages) < 0 || min(o.WriteTimeout, o.Heartbeat, o.Timeout) < 0 {
		return nil, errors.New("bus: hub: an option is negative; 0 is the default")
	}
	if o.Prefix == "" {
		o.Prefix = "hub"
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.QueueBytes = cmp.Or(o.QueueBytes, 1<<20)
	o.QueueMessages = cmp.Or(o.QueueMessages, math.MaxInt)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 5*time.Second)
	o.Heartbeat = cmp.Or(o.Heartbeat, 5*time.Second)
	o.Timeout = cmp.Or(o.Timeout, 2*time.Second)
	h.rooms.interest, h.rooms.seed = &h.interest, maphash.MakeSeed()
	h.interest.wake = make(chan struct{}, 1)
	h.rooms.lists.New = func() any { return new([]*Member) }
	h.batches.New = func() any { return new([]*Frame) }
	return h, nil
}

// ID returns the random ID of this node.
func (h *Hub) ID() string { return h.id }

// Run takes part in the bus until ctx ends: its caller starts it, once, before or
// while members connect. Then it closes all members with 1012 (Service Restart),
// waits for them, tells the other nodes that this one leaves, and returns nil.
//
// It returns an error if the bus refuses the subscription or ends it (a bus may,
// when a subscriber is too slow); members are closed in the same way.
func (h *Hub) Run(ctx context.Context) (err error) {
	if h.ran.Swap(true) {
		return errors.New("bus: hub: Run was called before")
	}
	defer func() { h.shut(err) }()
	sub, err := h.bus.Subscribe(ctx)
	if ctx.Err() != nil {
		if err == nil {
			sub.Close()
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("bus: hub: subscribe: %w", err)
	}
	defer sub.Close()

	receiving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var failed error
	received := make(chan struct{})
	go func() { // ends with stop
		defer close(received)
		failed = h.receive(receiving, sub)
	}()
	defer func() {
		stop()
		<-received
		h.asked.answers.Wait()
	}()

	if err := sub.Add(ctx, h.topic(everybody), h.topic(nodeKey+h.id)); err != nil && ctx.Err() == nil {
		h.opts.Log.Warn("the bus can't be reached; the hub goes on by itself until it can", "err", err)
	}
	h.greet()
	tick := time.NewTicker(h.opts.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-h.interest.wake:
			h.tend(ctx, sub)
		case <-tick.C:
			h.tell(ctx, kindAlive)
			h.nodes.forget(time.Now().Add(-3 * h.opts.Heartbeat))
			h.tellNodes()
		case <-received:
			return fmt.Errorf("bus: hub: %w", failed)
		case <-ctx.Done():
			h.shut(nil)
			h.tell(context.WithoutCancel(ctx), kindBye)
			return nil
		}
	}
}

// shut refuses what is new, because of err if it isn't nil, and closes the members
// and waits for them.
func (h *Hub) shut(err error) {
	h.mu.Lock()
	switch {
	case h.closed != nil:
	case err != nil:
		h.closed = fmt.Errorf("%w: %w", ErrClosed, err)
	default:
		h.closed = ErrClosed
	}
	h.mu.Unlock()
	h.interest.close()
	for m := range h.rooms.members(everybody) {
		m.Close(closeRestart, "service restart")
	}
	h.open.Wait()
}

// hasClosed returns nil until Run has ended, and then an error that wraps ErrClosed
// and what Run has returned.
func (h *Hub) hasClosed() error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.closed
}

func (h *Hub) topic(key string) string { return h.opts.Prefix + key }

// receive takes messages from the bus until ctx ends or the subscription does.
func (h *Hub) receive(ctx context.Context, sub Subscription) error {
	for {
		msg, err := sub.Next(ctx)
		var gap *Gap
		switch {
		case errors.As(err, &gap):
			h.gap(gap)
		case err != nil:
			return err
		default:
			h.handle(msg)
		}
	}
}

// gap tells who may have missed messages.
func (h *Hub) gap(gap *Gap) {
	h.greet() // heartbeats may be among them
	if h.opts.Gap == nil {
		h.opts.Log.Warn("messages between nodes are missing", "err", gap)
		return
	}
	who := Who{Local: true, All: gap.Topics == nil}
	for _, topic := range gap.Topics {
		key, _ := strings.CutPrefix(topic, h.opts.Prefix)
		who.All = who.All || key == everybody
		who.name(key)
	}
	h.opts.Gap(who, gap)
}

// handle deals with a message of another node.
func (h *Hub) handle(msg Message) {
	e, err := parseEnvelope(msg.Data)
	if err != nil {
		h.misfit(msg.Topic, err)
		return
	}
	if e.node == h.id {
		return
	}
	key, _ := strings.CutPrefix(msg.Topic, h.opts.Prefix)
	switch e.kind {
	case kindAlive, kindHello, kindBye:
		h.heard(&e)
	case kindAsk:
		h.asked.answers.Go(func() { h.answer(&e) }) // it takes as long as the bus does
	case kindAnswer:
		err = h.asked.add(&e)
	default:
		err = h.apply(&e, nil, key)
	}
	if err != nil {
		h.misfit(msg.Topic, err)
	}
}

// misfit warns of what isn't a hub's, or of another version's, the first time.
func (h *Hub) misfit(topic string, err error) {
	h.foreign.Do(func() {
		h.opts.Log.Warn("a message between nodes makes no sense; further ones aren't logged", "topic", topic, "err", err)
	})
}

// Send sends a message to the members that who selects: to those of this node at
// once, then over the bus. An error says that the members of other nodes, or some
// of them, were not reached.
//
// Send doesn't wait for members. A member that is gone, or that nobody knows, is
// no error.
func (h *Hub) Send(ctx context.Context, who Who, f *Frame) error {
	e := envelope{kind: kindText, payload: f.payload}
	if f.binary {
		e.kind = kindBinary
	}
	return h.dispatch(ctx, who, e, f)
}

// HubStats are figures of one node.
type HubStats struct {
	Members int   // connections
	Rooms   int   // that have members here
	Nodes   int   // that are known, this one included
	Dropped int64 // messages that slow members have lost, since the start
	Slow    int64 // members closed because they were slow
}

// Stats counts.
func (h *Hub) Stats() HubStats {
	members, rooms := h.rooms.count()
	return HubStats{
		Members: members, Rooms: rooms, Nodes: 1 + h.nodes.count(),
		Dropped: h.dropped.Load(), Slow: h.slow.Load(),
	}
}

// Local iterates over the members of this node that who selects. They may join,
// leave and end meanwhile.
func (h *Hub) Local(who Who) iter.Seq[*Member] {
	return func(yield func(*Member) bool) {
		to, except := who.to(), who.except()
		for i := range to {
			for m := range h.selected(to, i, except) {
				if !yield(m) {
					return
				}
			}
		}
	}
}
