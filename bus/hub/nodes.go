package hub

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"
)

// nodes are the other nodes of the hub, as far as they were heard.
type nodes struct {
	mu      sync.Mutex
	seen    map[string]*node     // by ID
	left    map[string]time.Time // by ID: until when a node that has left stays so
	told    map[string]bool      // the nodes that the hook Node knows of; only Run's goroutine uses it
	beats   int                  // number of heartbeats between those in which this node tells that it is there
	askers  []string             // the nodes that this one has to answer
	greet   bool                 // all nodes are to be asked to tell that they are there
	greeted time.Time            // when they were last asked
	again   bool                 // they will be asked at a random moment
}

// node is another node.
type node struct {
	until    time.Time // when it is forgotten, unless it is heard before
	doubtful bool      // it hasn't answered a question in time, and wasn't heard since
}

const (
	// oneOf is the number of nodes of which one tells in each heartbeat that it is
	// there, once there are more nodes than that.
	oneOf = 50
	// missed is the number of times that a node may fail to tell that it is there
	// before it is forgotten.
	missed = 3
	// spread is the time for each node within which nodes that have missed messages
	// greet the others. The connection that has broken may have been that of Redis,
	// and then all nodes greet: this leaves each node time to answer them all.
	spread = 5 * time.Millisecond
	// tellLimit is how long it may take to tell other nodes something about this one. A
	// bus may wait longer for a connection, and members join in the same goroutine.
	tellLimit = time.Second
)

func (n *nodes) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.seen)
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

// trust notes that a node has answered, or doubt that it hasn't.
func (n *nodes) trust(id string, doubt bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if other := n.seen[id]; other != nil {
		other.doubtful = doubt
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
// moment, and not within the time in which all of them tell of themselves anyway since
// the last greeting.
func (h *Hub) greetAgain() {
	n := &h.nodes
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.again {
		return
	}
	n.again = true
	pause := max(0, time.Until(n.greeted.Add(time.Duration(n.beats)*h.opts.Heartbeat)))
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
	lives := missed * h.opts.Heartbeat // of a node that doesn't say how long
	if ms, size := binary.Uvarint(e.payload); size > 0 && ms < 1<<32 {
		lives = time.Duration(ms) * time.Millisecond
	}
	n := &h.nodes
	n.mu.Lock()
	defer n.mu.Unlock()
	switch until := time.Now().Add(lives); {
	case e.kind == kindBye:
		delete(n.seen, e.node)
		put(&n.left, e.node, until)
	case n.left[e.node].IsZero():
		put(&n.seen, e.node, &node{until: until})
		if e.kind == kindHello {
			h.answerHello(e.node)
		}
	}
	h.interest.poke()
}

// put sets a value of a map that may not have been made yet.
func put[V any](m *map[string]V, key string, v V) {
	if *m == nil {
		*m = make(map[string]V)
	}
	(*m)[key] = v
}

// answerHello answers the greeting of a node, and nobody else: N nodes that greet each
// other make N² messages, and would make N³ if all were answered. nodes.mu is held.
func (h *Hub) answerHello(id string) {
	n := &h.nodes
	if n.askers = append(n.askers, id); len(n.askers) > 1 {
		return // the goroutine that answers the first one goes on with this one
	}
	h.asked.answers.Go(func() {
		for asker, more := id, true; more; {
			err := h.tell(context.Background(), nodeKey+asker, kindAlive)
			n.mu.Lock()
			n.askers = n.askers[1:]
			if err != nil {
				n.askers = nil // the bus is away: they will hear the next heartbeat
			}
			if more = len(n.askers) > 0; more {
				asker = n.askers[0]
			}
			n.mu.Unlock()
		}
	})
}

// heartbeat tells all nodes that this one is there, in each heartbeat if there are few of
// them. The more nodes there are, the more seldom each of them does it, so that all nodes
// together hear no more of each other than their number. Only Run's goroutine calls it,
// and passes the number of heartbeats since the last time that it returned 0.
func (h *Hub) heartbeat(ctx context.Context, since int) int {
	n := &h.nodes
	n.mu.Lock()
	due := since >= n.beats
	if due {
		n.beats = 1 + len(n.seen)/oneOf
	}
	n.mu.Unlock()
	if due && h.tell(ctx, everybody, kindAlive) == nil {
		return 0
	}
	return since
}

// tell tells one node or everybody, as key says, something about this node, which kind
// says, and after what time it is to be forgotten.
func (h *Hub) tell(ctx context.Context, key string, kind byte) error {
	h.nodes.mu.Lock()
	lives := missed * time.Duration(h.nodes.beats) * h.opts.Heartbeat
	h.nodes.mu.Unlock()
	e := envelope{kind: kind, node: h.id, payload: binary.AppendUvarint(nil, uint64(lives.Milliseconds()))}
	limited, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	err := h.bus.Publish(limited, h.topic(key), e.append(nil))
	if err != nil && ctx.Err() == nil {
		h.opts.Logger.Debug("a heartbeat didn't reach the other nodes", "err", err)
	}
	return err
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
