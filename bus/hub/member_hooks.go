package hub

import (
	"slices"
	"strings"
)

// event is a call of Joined or Left that is due.
type event struct {
	hook func(*Member, string) // or nil
	room string
}

// happened makes write call a hook. m.mu is held.
func (m *Member) happened(hook func(*Member, string), key string) {
	o := &m.hub.opts
	room, named := strings.CutPrefix(key, roomKey)
	if !named || o.Joined == nil && o.Left == nil {
		return
	}
	m.events = append(m.events, event{hook, room})
	if len(m.events) >= max(256, m.sweep) {
		m.events = remaining(m.events)
		m.sweep = 2 * len(m.events)
	}
	m.wake()
}

// remaining returns the events without those that undo each other, which leaves one
// for a room at most. Otherwise a client that enters and leaves rooms faster than the
// hooks return would fill the memory.
func remaining(events []event) []event {
	left := make(map[string]int)
	for _, e := range events {
		left[e.room]++
	}
	for room, n := range left {
		if n%2 == 0 {
			delete(left, room)
		}
	}
	return slices.DeleteFunc(events, func(e event) bool {
		left[e.room]--
		return left[e.room] != 0
	})
}
