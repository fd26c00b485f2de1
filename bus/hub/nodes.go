package hub

import (
	"context"
	"sync"
	"time"
)

// nodes are the other nodes of the hub, as far as their heartbeats were heard.
type nodes struct {
	mu    sync.Mutex
	seen  map[string]time.Time // by ID: when a node was last heard
	told  map[string]bool      // the nodes that the hook Node knows of; only Run's goroutine uses it
	greet bool                 // all nodes are to be asked to tell that they are there
}

func (n *nodes) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.seen)
}

// forget forgets the nodes that weren't heard since a time.
func (n *nodes) forget(since time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, at := range n.seen {
		if at.Before(since) {
			delete(n.seen, id)
		}
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

// greet makes Run greet all nodes, which they answer with a heartbeat.
func (h *Hub) greet() {
	h.nodes.mu.Lock()
	h.nodes.greet = true
	h.nodes.mu.Unlock()
	h.interest.poke()
}

// heard notes what a node says of itself. All of that is on one topic, so a node's bye
// comes after its heartbeats and isn't undone by one.
func (h *Hub) heard(e *envelope) {
	n := &h.nodes
	n.mu.Lock()
	if e.kind == kindBye {
		delete(n.seen, e.node)
	} else {
		if n.seen == nil {
			n.seen = make(map[string]time.Time)
		}
		n.seen[e.node] = time.Now()
	}
	n.mu.Unlock()
	h.interest.poke()
	if e.kind == kindHello {
		h.asked.answers.Go(func() { h.tell(context.Background(), kindAlive) })
	}
}

// tell tells all nodes something about this one, which kind says.
func (h *Hub) tell(ctx context.Context, kind byte) {
	e := envelope{kind: kind, node: h.id}
	if err := h.bus.Publish(ctx, h.topic(everybody), e.append(nil)); err != nil && ctx.Err() == nil {
		h.opts.Logger.Debug("a heartbeat didn't reach the other nodes", "err", err)
	}
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
			if n.told == nil {
				n.told = make(map[string]bool)
			}
			n.told[id] = true
		} else {
			delete(n.told, id)
		}
		h.opts.Node(id, alive)
	}
}
