package hub

import (
	"context"
	"maps"
	"slices"
	"time"
)

// The nodes stand in a ring, in the order of their IDs, and each of them is watched by those
// that follow it: to them it says in each heartbeat that it is there. So a node hears as
// much of others in a cluster of a thousand as in one of ten. A node that is silent for its
// watchers is accused before everybody, and forgotten by everybody unless it answers soon.
// Who is silent because the bus is away, or because it is this node that hears nothing, is
// not forgotten for that: an accusation counts, for its author too, when the bus delivers it.
//
// When a node and its watchers die together, those that follow in the ring find the watchers
// first, then watch what was behind them, and find the node.
const (
	// watchers is the number of nodes that watch a node.
	watchers = 2
	// few is the number of other nodes up to which a node tells everybody in each heartbeat
	// that it is there, which costs the bus less than one message for each watcher.
	few = 8
	// seldom is the number of heartbeats after which a node tells it everybody otherwise, as
	// long as there are at most oneOf times as many nodes. This mends what nobody has
	// noticed, such as a greeting that was lost. Beyond that a node in oneOf tells it in each
	// heartbeat.
	seldom, oneOf = 15, 4
	// missed is the number of times that a node may fail to tell everybody that it is there
	// before it is forgotten without an accusation.
	missed = 3
	// crowd is the number of nodes from which on no one is accused of not having answered
	// a question: so many don't die together, it is the bus that is slow.
	crowd = 8
)

// pace returns the number of heartbeats from one in which this node tells everybody that it
// is there to the next. Nodes of an older version want to hear it in each, and forget whom
// they don't hear. n.mu is held.
func (n *nodes) pace() int {
	if len(n.seen) <= few {
		return 1
	}
	for _, other := range n.seen {
		if other.patience == 0 {
			return 1
		}
	}
	return max(seldom, len(n.seen)/oneOf)
}

// heartbeat tells that this node is there, and accuses those that it watches and that are
// silent. Only Run's goroutine calls it.
func (h *Hub) heartbeat(ctx context.Context) {
	n := &h.nodes
	n.mu.Lock()
	pace := n.pace()
	n.beats = min(n.beats, pace) - 1
	keys := []string{everybody}
	ring, at := n.ring(h.id)
	if n.beats > 0 {
		keys = keys[:0]
		for i := range min(watchers, len(ring)) {
			keys = append(keys, nodeKey+ring[(at+i)%len(ring)])
		}
	}
	n.watch(ring, at, time.Now())
	n.mu.Unlock()

	for _, key := range keys {
		if h.tell(ctx, key, kindAlive) != nil {
			n.rest() // nobody else may be able to tell anything either
			return
		}
	}
	if keys[0] == everybody {
		n.mu.Lock()
		n.beats = pace
		n.mu.Unlock()
	}
	h.accuse(ctx)
}

// ring returns the IDs of the other nodes in their order, and the place of the first one
// behind this node. n.mu is held.
func (n *nodes) ring(self string) (ids []string, at int) {
	ids = slices.Sorted(maps.Keys(n.seen))
	at, _ = slices.BinarySearch(ids, self)
	return ids, at
}

// watch notes which nodes this one watches, and which of them have been silent for too long.
// n.mu is held.
func (n *nodes) watch(ring []string, at int, now time.Time) {
	watched := make(map[string]bool, watchers)
	for i := range min(watchers, len(ring)) {
		watched[ring[(at-1-i+2*len(ring))%len(ring)]] = true
	}
	for id, other := range n.seen {
		switch {
		case !watched[id] || other.patience == 0:
			other.watched = time.Time{}
		case other.watched.IsZero():
			other.watched = now
		case latest(other.heard, other.watched, other.accused).Add(other.patience).Before(now):
			n.suspects = append(n.suspects, id)
		}
	}
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// rest makes this node begin anew to watch others: what it didn't hear, it may have missed.
func (n *nodes) rest() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.suspects = nil
	for _, other := range n.seen {
		other.watched = time.Time{}
	}
}

// doubt notes which nodes haven't answered a question in time, and makes Run accuse them.
func (h *Hub) doubt(q *question) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := &h.nodes
	n.mu.Lock()
	defer n.mu.Unlock()
	for id := range q.waiting {
		if other := n.seen[id]; other != nil {
			if !other.doubtful && other.patience > 0 && len(q.waiting) < crowd {
				n.suspects = append(n.suspects, id)
			}
			other.doubtful = true
		}
	}
	h.interest.poke()
}

// accuse asks everybody to forget the suspects unless they are heard. Only Run's goroutine
// calls it.
func (h *Hub) accuse(ctx context.Context) {
	n := &h.nodes
	n.mu.Lock()
	suspects := n.suspects
	n.suspects = nil
	n.mu.Unlock()
	if len(suspects) > 0 {
		_ = h.inform(ctx, everybody, envelope{kind: kindSilent, payload: appendStrings(nil, suspects)})
	}
}

// accused deals with an accusation, of this node too. A node that was accused has the time of
// a heartbeat to answer.
func (h *Hub) accused(e *envelope) error {
	in := input{b: e.payload}
	ids := in.strings()
	if in.short {
		return errShort
	}
	now := time.Now()
	n := &h.nodes
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		if id == h.id {
			h.answer(everybody)
			continue
		}
		other := n.seen[id]
		if other == nil || other.patience == 0 {
			continue
		}
		other.accused, other.doubtful = now, true
		if soon := now.Add(h.opts.Heartbeat); soon.Before(other.until) {
			other.until = soon
			time.AfterFunc(h.opts.Heartbeat+time.Millisecond, func() { // does no harm when Run has ended
				n.forget(time.Now())
				h.interest.poke()
			})
		}
	}
	return nil
}
