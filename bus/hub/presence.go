package hub

import (
	"bytes"
	"iter"
	"slices"
	"sync"
	"time"
)

// presence is what nodes with [Options].Presence know of each other's members.
//
// Each node numbers what it announces on a topic for all of them: a change of some members,
// with all that is known of them now. Whoever has missed a number asks that node for a list
// of all its members, which says up to which number it is complete. Heartbeats and answers to
// greetings tell the last number, so that a node that has just started asks, too, and one
// that hears nothing for a while finds out what it has missed.
type presence struct {
	// telling is held by whoever changes what follows, until the hook OnPresence has been
	// told. The hook may read meanwhile.
	telling sync.Mutex

	mu    sync.RWMutex
	nodes map[string]*announced            // by ID of the node, this one included
	in    map[string]map[*present]struct{} // the members of other nodes, by the keys that select them
}

// announced is what a node has announced.
type announced struct {
	number  uint64 // of the last announcement that members are complete with
	members map[uint64]*present

	last   uint64    // the number of the last announcement of which this node knows
	behind time.Time // since when number is less than last
	asked  time.Time // when the node was last asked for a list
	later  []news    // announcements behind one that is missing
	list   []news    // the parts of a list that have come
}

// present is a member.
type present struct {
	MemberInfo
	keys []string // sorted: of everybody, its ID and its rooms
}

func (p *present) is(keys []string) bool {
	return slices.ContainsFunc(keys, func(key string) bool {
		_, in := slices.BinarySearch(p.keys, key)
		return in
	})
}

// Present iterates over the members of all nodes that who selects, in no order. It asks
// nobody: with [Options].Presence each node knows the members of the others, some 50 ms after
// they have changed, or some more if there are hundreds of nodes. Without it these are the
// members of this node. Rooms and Data must not be changed.
func (h *Hub) Present(who Who) iter.Seq[MemberInfo] {
	return func(yield func(MemberInfo) bool) {
		for m := range h.Local(who) {
			if !yield(m.Info()) {
				return
			}
		}
		if who.Local {
			return
		}
		var there []*present
		h.presence.each(who, func(p *present) { there = append(there, p) })
		for _, p := range there {
			if !yield(p.MemberInfo) {
				return
			}
		}
	}
}

// Count returns the number of members that [Hub.Present] would iterate over. It takes longer
// for more members only if who names several rooms and IDs, or exceptions.
func (h *Hub) Count(who Who) (n int) {
	to, except := who.to(), who.except()
	if len(to) == 1 && len(except) == 0 {
		n = h.rooms.size(to[0])
		if !who.Local {
			h.presence.mu.RLock()
			n += len(h.presence.in[to[0]])
			h.presence.mu.RUnlock()
		}
		return n
	}
	for range h.Local(who) {
		n++
	}
	if !who.Local {
		h.presence.each(who, func(*present) { n++ })
	}
	return n
}

// each calls f, which must not change anything, for the members of other nodes that who
// selects.
func (p *presence) each(who Who, f func(*present)) {
	to, except := who.to(), who.except()
	p.mu.RLock()
	defer p.mu.RUnlock()
	for i, key := range to {
		for m := range p.in[key] {
			if !m.is(to[:i]) && !m.is(except) {
				f(m)
			}
		}
	}
}

// told is a call of OnPresence that is due.
type told struct {
	member MemberInfo
	room   string
	joined bool
}

// change sets what is known of a member of a node, nil if it is gone, and appends to calls
// whom to tell. It reports whether that is new. telling and mu are held.
func (h *Hub) change(id string, key uint64, info *MemberInfo, calls *[]told) bool {
	p := &h.presence
	a := p.node(id)
	old := a.members[key]
	if info == nil && old == nil || info != nil && old != nil &&
		slices.Equal(info.Rooms, old.Rooms) && bytes.Equal(info.Data, old.Data) {
		return false
	}
	var before, after []string
	if old != nil {
		before = old.Rooms
		delete(a.members, key)
		for _, key := range old.keys {
			if delete(p.in[key], old); len(p.in[key]) == 0 {
				delete(p.in, key)
			}
		}
	}
	if info != nil {
		after = info.Rooms
		m := &present{MemberInfo: *info, keys: keys(info.Rooms, []string{info.ID})}
		m.Node, m.keys = id, append(m.keys, everybody)
		slices.Sort(m.keys)
		a.members[key] = m
		if id != h.id {
			for _, key := range m.keys {
				if p.in[key] == nil {
					p.in[key] = make(map[*present]struct{})
				}
				p.in[key][m] = struct{}{}
			}
		}
		old = m // what is told of it is what is known now
	}
	if h.opts.OnPresence == nil {
		return true
	}
	for _, room := range before {
		if !slices.Contains(after, room) {
			*calls = append(*calls, told{old.MemberInfo, room, false})
		}
	}
	for _, room := range after {
		if !slices.Contains(before, room) {
			*calls = append(*calls, told{old.MemberInfo, room, true})
		}
	}
	return true
}

// node returns what a node has announced. mu is held.
func (p *presence) node(id string) *announced {
	a := p.nodes[id]
	if a == nil {
		a = &announced{members: make(map[uint64]*present)}
		put(&p.nodes, id, a)
	}
	return a
}

// tellPresence calls the hook OnPresence. telling is held, and mu isn't.
func (h *Hub) tellPresence(calls []told) {
	for _, call := range calls {
		h.opts.OnPresence(call.member, call.room, call.joined)
	}
}

// dropMembers drops the members of nodes that have left or are forgotten. Only Run's
// goroutine calls it.
func (h *Hub) dropMembers() {
	if !h.opts.Presence {
		return
	}
	p := &h.presence
	p.telling.Lock()
	defer p.telling.Unlock()
	var calls []told
	p.mu.Lock()
	for id, a := range p.nodes {
		if id == h.id || h.nodes.knows(id) {
			continue
		}
		for key := range a.members {
			h.change(id, key, nil, &calls)
		}
		delete(p.nodes, id)
	}
	p.mu.Unlock()
	h.tellPresence(calls)
}
