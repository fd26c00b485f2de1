package hub

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// nodes are the other nodes of the hub, as far as they were heard.
//
// A node greets all others when it starts, and again when it may have missed messages,
// and each of them answers it. From then on it is watched by few of them (see
// [Hub.heartbeat]).
type nodes struct {
	mu       sync.Mutex
	seen     map[string]*node     // by ID
	left     map[string]time.Time // by ID: until when a node that has left stays so
	told     map[string]bool      // the nodes that the hook Node knows of; only Run's goroutine uses it
	beats    int                  // the number of heartbeats until this node tells everybody that it is there
	suspects []string             // the nodes that Run is to accuse
	askers   []string             // the keys of those that are to be told that this node is there
	greet    bool                 // all nodes are to be asked to tell that they are there
	greeted  time.Time            // when they were last asked
	again    bool                 // they will be asked at a random moment
}

// node is another node.
type node struct {
	until    time.Time     // when it is forgotten, unless it is heard before
	heard    time.Time     // when it was last heard
	patience time.Duration // how long it may be silent for its watchers; 0 for one of an older version, which knows no watchers
	watched  time.Time     // since when this node watches it; zero if it doesn't
	accused  time.Time     // when it was last accused of being silent
	doubtful bool          // it hasn't answered a question in time or was accused, and wasn't heard since
}

const (
	// spread is the time for each node within which nodes that have missed messages
	// greet the others. The connection that has broken may have been that of Redis,
	// and then all nodes greet: this leaves each node time to answer them all.
	spread = 5 * time.Millisecond
	// calm is the number of heartbeats for which a node doesn't greet again.
	calm = 5
	// tellLimit is how long it may take to tell other nodes something about this one. A
	// bus may wait longer for a connection, and members join in the same goroutine.
	tellLimit = time.Second
)

func (n *nodes) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.seen)
}

// knows reports whether a node is known.
func (n *nodes) knows(id string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seen[id] != nil
}

// forget forgets the nodes whose time is over.
func (n *nodes) forget(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, other := range n.seen {
		if other.until.Before(now) {
			delete(n.seen, id)
		}
	}
	for id, until := range n.left {
		if until.Before(now) {
			delete(n.left, id)
		}
	}
}

// trust notes that a node has answered a question.
func (n *nodes) trust(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if other := n.seen[id]; other != nil {
		other.doubtful = false
	}
}

// greeting reports whether the other nodes are to be greeted, which is then taken for
// done.
func (n *nodes) greeting() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.greet
	n.greet = false
	return was
}

// greet makes Run greet all nodes, which they answer.
func (h *Hub) greet() {
	h.nodes.mu.Lock()
	h.nodes.greet = true
	h.nodes.mu.Unlock()
	h.interest.poke()
}

// hello greets all nodes. Only Run's goroutine calls it.
func (h *Hub) hello(ctx context.Context) {
	err := h.tell(ctx, everybody, kindHello)
	n := &h.nodes
	n.mu.Lock()
	defer n.mu.Unlock()
	n.again = false
	if err == nil {
		n.greeted = time.Now()
	}
}

// greetAgain makes Run greet all nodes after messages of theirs were missing: at a random
// moment, and not too soon after the last greeting.
func (h *Hub) greetAgain() {
	n := &h.nodes
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.again {
		return
	}
	n.again = true
	pause := max(0, time.Until(n.greeted.Add(calm*h.opts.Heartbeat)))
	if len(n.seen) > 0 {
		pause += rand.N(time.Duration(len(n.seen)) * spread)
	}
	if pause == 0 {
		n.greet = true
		h.interest.poke()
		return
	}
	time.AfterFunc(pause, h.greet) // does no harm when Run has ended
}

// heard notes what a node says of itself. What it says to all comes in order, but its
// answer to a greeting is on another topic and may come behind its bye: a node that has
// left stays so.
func (h *Hub) heard(e *envelope) {
	said := parseCondition(e.payload, missed*h.opts.Heartbeat)
	now := time.Now()
	n := &h.nodes
	n.mu.Lock()
	known := false
	switch {
	case e.kind == kindBye:
		delete(n.seen, e.node)
		put(&n.left, e.node, now.Add(said.lives))
	case n.left[e.node].IsZero():
		other := n.seen[e.node]
		if other == nil {
			other = &node{}
			put(&n.seen, e.node, other)
		}
		other.heard, other.until, other.patience, other.doubtful = now, now.Add(said.lives), said.patience, false
		if known = true; e.kind == kindHello {
			h.answer(nodeKey + e.node)
		}
	}
	n.mu.Unlock()
	if known {
		h.announcedUpTo(e.node, said.number)
	}
	h.interest.poke()
}

// put sets a value of a map that may not have been made yet.
func put[K comparable, V any](m *map[K]V, key K, v V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[key] = v
}

// answer tells those that a key stands for that this node is there: the node that has
// greeted, and nobody else, since N nodes that greet each other make N² messages, and would
// make N³ if all were answered; or everybody, if this node was accused. nodes.mu is held.
func (h *Hub) answer(key string) {
	n := &h.nodes
	if slices.Contains(n.askers, key) {
		return
	}
	if n.askers = append(n.askers, key); len(n.askers) > 1 {
		return // the goroutine that answers the first one goes on with this one
	}
	h.asked.answers.Go(func() {
		for more := true; more; {
			err := h.tell(context.Background(), key, kindAlive)
			n.mu.Lock()
			n.askers = n.askers[1:]
			if err != nil {
				// The bus is away. All who have asked are told together with the next heartbeat.
				n.askers, n.beats = nil, 0
			}
			if more = len(n.askers) > 0; more {
				key = n.askers[0]
			}
			n.mu.Unlock()
		}
	})
}

// tell tells one node or everybody, as key says, something about this node, which kind
// says, and its condition.
func (h *Hub) tell(ctx context.Context, key string, kind byte) error {
	h.nodes.mu.Lock()
	c := condition{
		lives:    missed * time.Duration(max(h.nodes.pace(), seldom)) * h.opts.Heartbeat,
		patience: h.opts.Heartbeat * 5 / 2,
		number:   h.announcer.number.Load(),
	}
	h.nodes.mu.Unlock()
	return h.inform(ctx, key, envelope{kind: kind, payload: c.append(nil)})
}

// inform publishes what nodes tell each other about nodes.
func (h *Hub) inform(ctx context.Context, key string, e envelope) error {
	e.node = h.id
	limited, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	err := h.bus.Publish(limited, h.topic(key), e.append(nil))
	if err != nil && ctx.Err() == nil {
		h.opts.Logger.Debug("other nodes were not told of this one", "err", err)
	}
	return err
}

// condition is what a node tells of itself. A node of an older version tells only how long
// it lives, or nothing.
type condition struct {
	lives    time.Duration // after which it is to be forgotten, unless it is heard before
	patience time.Duration // for which it may be silent for its watchers
	number   uint64        // of the last announcement of its members, or 0
}

// append appends the condition to b: times in milliseconds, and the number.
func (c condition) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(c.lives.Milliseconds()))
	b = binary.AppendUvarint(b, uint64(c.patience.Milliseconds()))
	return binary.AppendUvarint(b, c.number)
}

// parseCondition is the inverse of append. lives is for a node that tells nothing.
func parseCondition(b []byte, lives time.Duration) condition {
	c := condition{lives: lives}
	for _, field := range []*time.Duration{&c.lives, &c.patience} {
		ms, size := binary.Uvarint(b)
		if size <= 0 || ms > uint64(math.MaxInt64/time.Millisecond) {
			return c
		}
		*field = time.Duration(ms) * time.Millisecond
		b = b[size:]
	}
	c.number, _ = binary.Uvarint(b)
	return c
}

// tellNodes calls the hook Node for the nodes that have come or gone since it was last
// called. Only Run's goroutine calls it.
func (h *Hub) tellNodes() {
	if h.opts.Node == nil {
		return
	}
	n := &h.nodes
	n.mu.Lock()
	changed := make(map[string]bool)
	for id := range n.seen {
		if !n.told[id] {
			changed[id] = true
		}
	}
	for id := range n.told {
		if _, seen := n.seen[id]; !seen {
			changed[id] = false
		}
	}
	n.mu.Unlock()
	for id, alive := range changed {
		if alive {
			put(&n.told, id, true)
		} else {
			delete(n.told, id)
		}
		h.opts.Node(id, alive)
	}
}
