package hub

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// announcer announces the members of this node to the others, if [Options].Presence is set.
type announcer struct {
	wake    chan struct{} // has a value when there is something to do
	keys    atomic.Uint64 // the key of the last member
	number  atomic.Uint64 // of the last announcement that the bus has taken
	pending []envelope    // that the bus hasn't taken yet; only announce uses it

	mu      sync.Mutex
	changed map[*Member]struct{} // that are to be announced
	askers  []string             // the nodes that want a list
}

// news is what a node tells of its members.
type news struct {
	Number  uint64         `json:"number"`          // of the announcement; for a list, of the last one before it
	Part    int            `json:"part,omitempty"`  // of a list, from 0 on
	Parts   int            `json:"parts,omitempty"` // of a list; 0 for an announcement
	Members []memberChange `json:"members,omitempty"`
}

// memberChange is what is known of a member now.
type memberChange struct {
	Key    uint64      `json:"key"`              // tells the members of a node apart, whose IDs may be the same
	Member *MemberInfo `json:"member,omitempty"` // nil if it is gone
}

func (c memberChange) size() int {
	if c.Member == nil {
		return 0
	}
	return c.Member.size()
}

func parseNews(payload []byte) (n news, err error) {
	err = json.Unmarshal(payload, &n)
	return n, err
}

const (
	// announceAfter is how long changes are gathered for one announcement, and
	// announceSpread how much longer for each other node: so a node hears at most some 500
	// announcements in a second, however many nodes there are and however much happens.
	announceAfter  = 50 * time.Millisecond
	announceSpread = 2 * time.Millisecond
)

// poke makes announce look for something to do.
func (a *announcer) poke() {
	select {
	case a.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// change notes that a member has changed. Its mu is held.
func (a *announcer) change(m *Member) {
	if m.key == 0 {
		return // the hub has no presence
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	put(&a.changed, m, struct{}{})
	a.poke()
}

// ask notes that a node wants a list.
func (a *announcer) ask(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Contains(a.askers, id) {
		a.askers = append(a.askers, id)
	}
	a.poke()
}

// announce tells the other nodes of the members of this one until ctx ends.
func (h *Hub) announce(ctx context.Context) {
	a := &h.announcer
	for {
		select {
		case <-a.wake:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(announceAfter + time.Duration(h.nodes.count())*announceSpread):
		case <-ctx.Done():
			return
		}
		h.announceChanges(ctx)
		h.sendLists(ctx)
		for _, id := range h.presence.missing(time.Now(), h.opts.Heartbeat) {
			_ = h.inform(ctx, nodeKey+id, envelope{kind: kindAskList})
		}
	}
}

// announceChanges announces the members that have changed. What the bus doesn't take is tried
// again with the next heartbeat, with the same number: it may have been sent all the same.
func (h *Hub) announceChanges(ctx context.Context) {
	if h.publishNews(ctx) {
		h.announcer.pending = h.gather()
		h.publishNews(ctx)
	}
}

// publishNews publishes what is pending, and reports whether the bus has taken all of it.
func (h *Hub) publishNews(ctx context.Context) bool {
	a := &h.announcer
	for len(a.pending) > 0 {
		if h.inform(ctx, presenceKey, a.pending[0]) != nil {
			return false
		}
		a.pending = a.pending[1:]
		a.number.Add(1)
	}
	return true
}

// gather returns announcements of the members that have changed, and tells of them here.
func (h *Hub) gather() (out []envelope) {
	h.announcer.mu.Lock()
	changed := h.announcer.changed
	h.announcer.changed = nil
	h.announcer.mu.Unlock()
	p := &h.presence
	p.telling.Lock()
	defer p.telling.Unlock()
	var changes []memberChange
	var calls []told
	p.mu.Lock()
	own := p.node(h.id)
	for m := range changed {
		c := memberChange{Key: m.key}
		if info := m.Info(); !m.over() {
			info.Node = "" // the envelope says it
			c.Member = &info
		}
		if h.change(h.id, c.Key, c.Member, &calls) {
			changes = append(changes, c)
		}
	}
	if len(changes) > 0 {
		for _, part := range divide(changes, memberChange.size) {
			own.number++
			out = append(out, envelope{kind: kindNews, payload: marshal(news{Number: own.number, Members: part})})
		}
	}
	p.mu.Unlock()
	h.tellPresence(calls)
	return out
}

// sendLists sends those who have asked a list of all members that were announced.
func (h *Hub) sendLists(ctx context.Context) {
	a := &h.announcer
	a.mu.Lock()
	askers := a.askers
	a.askers = nil
	a.mu.Unlock()
	if len(askers) == 0 {
		return
	}
	var all []memberChange
	p := &h.presence
	p.mu.RLock()
	number, members := p.nodes[h.id].number, p.nodes[h.id].members
	// The order makes two lists of the same number alike, part by part: if some parts get lost, a
	// node may put those of both together.
	for _, key := range slices.Sorted(maps.Keys(members)) {
		info := members[key].MemberInfo
		info.Node = ""
		all = append(all, memberChange{Key: key, Member: &info})
	}
	p.mu.RUnlock()
	var list []envelope
	parts := divide(all, memberChange.size)
	for i, part := range parts {
		list = append(list, envelope{kind: kindNews,
			payload: marshal(news{Number: number, Part: i, Parts: len(parts), Members: part})})
	}
	for _, id := range askers {
		for _, part := range list {
			if h.inform(ctx, nodeKey+id, part) != nil {
				return // they ask again
			}
		}
	}
}
