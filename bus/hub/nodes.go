package hub

import (
	"context"
	"sync"
	"time"
)

// nodes are the other nodes of the hub, as their heartbeats tell.
type nodes struct {
	mu    sync.Mutex
	seen  map[string]time.Time
	told  map[string]bool // to the hook Node; its goroutine's
	greet bool            // ask who is there
}

func (n *nodes) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.seen)
}

// forget forgets those who weren't heard since.
func (n *nodes) forget(since time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, at := range n.seen {
		if at.Before(since) {
			delete(n.seen, id)
		}
	}
}

// greeting reports whether all nodes are to be asked who is there.
func (n *nodes) greeting() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.greet
	n.greet = false
	return was
}

// greet has Run ask who is there.
func (h *Hub) greet() {
	h.nodes.mu.Lock()
	h.nodes.greet = true
	h.nodes.mu.Unlock()
	h.interest.poke()
}

// heard notes a heartbeat. They all are on one topic: a node's bye comes last.
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

// tell tells all nodes about this one.
func (h *Hub) tell(ctx context.Context, kind byte) {
	e := envelope{kind: kind, node: h.id}
	if err := h.bus.Publish(ctx, h.topic(everybody), e.append(nil)); err != nil && ctx.Err() == nil {
		h.opts.Log.Debug("a heartbeat didn't reach the other nodes", "err", err)
	}
}

// tellNodes calls the hook Node for what has changed.
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
