package hub

import (
	"slices"
	"time"
)

// learn deals with an announcement, or a part of a list. What a node says that isn't known,
// or not any more, is ignored: it is asked for a list once it is heard.
func (h *Hub) learn(e *envelope) error {
	if !h.opts.Presence {
		return nil
	}
	said, err := parseNews(e.payload)
	if err != nil {
		return err
	}
	p := &h.presence
	p.telling.Lock()
	defer p.telling.Unlock()
	if !h.nodes.knows(e.node) {
		return nil
	}
	var calls []told
	p.mu.Lock()
	a := p.node(e.node)
	if said.Parts > 0 {
		h.replace(e.node, a, said, &calls)
	} else if said.Number > a.number {
		if a.later = append(a.later, said); len(a.later) > laterLimit {
			a.later = slices.Delete(a.later, 0, 1)
		}
	}
	h.makeDue(e.node, a, &calls)
	p.mu.Unlock()
	h.tellPresence(calls)
	return nil
}

// laterLimit is the number of announcements that are kept while a list is awaited. When there
// are more, another list may be needed.
const laterLimit = 20

// replace takes a part of a list, and once all parts have come replaces the members of a
// node by those of the list. A list of before what is known comes too late.
func (h *Hub) replace(id string, a *announced, part news, calls *[]told) {
	a.list = slices.DeleteFunc(a.list, func(other news) bool {
		return other.Number != part.Number || other.Parts != part.Parts || other.Part == part.Part
	})
	if a.list = append(a.list, part); len(a.list) < part.Parts {
		return
	}
	list := a.list
	a.list = nil
	if part.Number < a.number {
		return
	}
	stays := make(map[uint64]bool)
	for _, part := range list {
		for _, c := range part.Members {
			stays[c.Key] = true
			h.change(id, c.Key, c.Member, calls)
		}
	}
	for key := range a.members {
		if !stays[key] {
			h.change(id, key, nil, calls)
		}
	}
	a.number = part.Number
}

// makeDue makes the changes whose turn has come, and has the node asked for a list if one is
// missing.
func (h *Hub) makeDue(id string, a *announced, calls *[]told) {
	for len(a.later) > 0 && a.later[0].Number <= a.number+1 {
		if next := a.later[0]; next.Number > a.number {
			for _, c := range next.Members {
				h.change(id, c.Key, c.Member, calls)
			}
			a.number = next.Number
		}
		a.later = a.later[1:]
	}
	for _, next := range a.later {
		a.last = max(a.last, next.Number)
	}
	h.noteBehind(a)
}

// noteBehind has a node asked for a list if it has announced more than is known here.
func (h *Hub) noteBehind(a *announced) {
	switch {
	case a.number >= a.last:
		a.behind = time.Time{}
	case a.behind.IsZero():
		a.behind = time.Now()
		h.announcer.poke()
	}
}

// announcedUpTo notes the number of the last announcement that a node has made.
func (h *Hub) announcedUpTo(id string, number uint64) {
	p := &h.presence
	if number == 0 || !h.opts.Presence {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.node(id)
	a.last = max(a.last, number)
	h.noteBehind(a)
}

// missing returns the nodes that are to be asked for a list. An announcement may be on its
// way still when a heartbeat, on another topic, tells its number; but not if one behind it
// has come, nor if none has come ever.
func (p *presence) missing(now time.Time, again time.Duration) (ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, a := range p.nodes {
		sure := a.number == 0 || len(a.later) > 0 || now.Sub(a.behind) >= time.Second
		if !a.behind.IsZero() && sure && now.Sub(a.asked) >= again {
			a.asked = now
			ids = append(ids, id)
		}
	}
	return ids
}
