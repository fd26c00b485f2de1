package hub

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/typednil"
)

// A Hub keeps rooms of members. The members are connections of this process; the
// rooms are joined over a bus to those of all other hubs with the same prefix. Each
// of these hubs is a node.
//
// # Order
//
// Messages that one goroutine sends to one room reach each member of the room in
// the order in which they were sent, if each was sent after the call before had
// returned. The messages to everybody have an order of their own, and so have those
// to an ID. How surely a message reaches the other nodes is what the bus promises. With
// [Options].Recover the messages to a room come to all members in one order, whoever sends
// them, and members that were away get those that they have missed.
//
// # Cost
//
// A slow member delays nobody: each member has a queue of its own. A member has no
// goroutine while there is nothing to write to it. A WebSocket of [Hub.Handler] has one
// that waits for the client, and takes about 10 KiB with it. While nothing comes it holds
// no buffer, but for a message of which a part has come.
//
// A hub subscribes to one topic for all nodes, to a second one for Presence, to one for
// itself, and to one for
// each room and each ID that has members here. With [bus.Streams] set its Idle:
// otherwise every topic that was ever published on stays in Redis.
//
// All methods may be called concurrently.
type Hub struct {
	bus     bus.Bus
	history bus.History // the bus, or nil without [Options].Recover
	opts    Options
	id      string

	rooms     rooms
	interest  interest
	nodes     nodes
	presence  presence
	asked     asked
	polls     atomic.Uint64 // the number of the last question to members of this node
	announcer announcer
	ran       atomic.Bool // Run was called
	unrun     sync.Once   // logs that Run isn't called
	foreign   sync.Once   // logs that a message makes no sense
	refusing  sync.Once   // logs that clients are refused
	hidden    sync.Once   // logs that a middleware hides connections

	mu     sync.RWMutex
	closed error          // wraps ErrClosed once Run ends, nil before
	open   sync.WaitGroup // counts members whose Conn isn't closed yet; grows with mu held

	batches sync.Pool // of *[]*Frame

	dropped, slow, gaps       atomic.Int64
	sent, received, delivered atomic.Int64
}

// ErrClosed is wrapped by the errors of [Hub.Connect] and [Member.Join] once
// [Hub.Run] has ended. If Run has failed, its error is wrapped, too.
var ErrClosed = errors.New("the hub has ended")

// New returns a hub. The caller starts [Hub.Run]: until then the hub hears nothing
// of other nodes, and connections that join it wait. A nil b is a [bus.Memory] of
// its own, with which the hub has no other nodes. Nil options are defaults.
//
// New returns an error for negative options, and if b has a method Validate that
// returns one, as those of [bus.Redis] and [bus.Streams] do for a client that can't
// be used. With [Options].Recover b has to be a [bus.History].
func New(b bus.Bus, opts *Options) (*Hub, error) {
	h := &Hub{bus: b, id: rand.Text()}
	if b == nil {
		h.bus = &bus.Memory{}
	}
	if err := typednil.Check(b); err != nil {
		return nil, fmt.Errorf("hub: bus: %w", err)
	}
	if v, ok := b.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return nil, fmt.Errorf("hub: %w", err)
		}
	}
	if opts != nil {
		h.opts = *opts
	}
	if err := h.opts.setDefaults(); err != nil {
		return nil, fmt.Errorf("hub: %w", err)
	}
	if err := h.setHistory(b == nil); err != nil {
		return nil, fmt.Errorf("hub: %w", err)
	}
	h.rooms.hub, h.rooms.interest, h.rooms.seed = h, &h.interest, maphash.MakeSeed()
	h.interest.wake, h.announcer.wake = make(chan struct{}, 1), make(chan struct{}, 1)
	h.presence.in = make(map[string]map[*present]struct{})
	h.rooms.lists.New = func() any { return new([]*Member) }
	h.batches.New = func() any { return new([]*Frame) }
	return h, nil
}

// setHistory makes the hub use the history of its bus, if it is to recover messages. own
// says that the bus is a Memory of its own.
func (h *Hub) setHistory(own bool) error {
	if h.opts.Recover == 0 {
		return nil
	}
	if own {
		h.bus = &bus.Memory{History: h.opts.Recover, Idle: time.Hour}
	}
	history, ok := h.bus.(bus.History)
	if memory, is := h.bus.(*bus.Memory); !ok || is && memory.History <= 0 {
		return fmt.Errorf("option Recover needs a bus with a history: bus.Streams, or bus.Memory with History set, not %T", h.bus)
	}
	h.history = history
	return nil
}

// ID returns the random ID of this node.
func (h *Hub) ID() string { return h.id }

// topic returns the name of the topic that belongs to a key.
func (h *Hub) topic(key string) string { return h.opts.Prefix + key }

// Stats are figures of one node. The counts begin when the hub is made.
type Stats struct {
	Members int // the members of this node
	Rooms   int // the rooms that have members on this node
	Nodes   int // the nodes that are known, this one included

	Sent      int64 // the messages for which [Hub.Send] was called
	Received  int64 // the messages of other nodes, which come once for each room and ID that they are for
	Delivered int64 // the messages that connections have taken, counted for each member
	Dropped   int64 // the messages that slow members have lost
	Slow      int64 // the members that were closed because they were slow
	Gaps      int64 // the times that messages of other nodes were missing, or may have been

	QueuedBytes  int64 // what waits for the connections of members now, as QueueBytes counts it
	LongestQueue int   // of these, what waits for the member for whom most does
}

// Stats returns the figures of this node. It looks at each member, which takes some
// milliseconds for 100,000 of them, and delays none.
func (h *Hub) Stats() Stats {
	members, rooms := h.rooms.count()
	s := Stats{
		Members: members, Rooms: rooms, Nodes: 1 + h.nodes.count(),
		Sent: h.sent.Load(), Received: h.received.Load(), Delivered: h.delivered.Load(),
		Dropped: h.dropped.Load(), Slow: h.slow.Load(), Gaps: h.gaps.Load(),
	}
	for m := range h.rooms.members(everybody) {
		n := m.queued()
		s.QueuedBytes += int64(n)
		s.LongestQueue = max(s.LongestQueue, n)
	}
	return s
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
