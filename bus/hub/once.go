package hub

import (
	"slices"
	"strings"
)

// A message to several rooms is in the history of each, and its position in one says nothing
// about that in another. A member that enters these rooms one after the other, and gets in each
// what it has missed, knows the message again by a number that its node gives to no other one.
// The number is the last of the keys for which the message is excepted: nobody has this key.
const onceKey = ":once:"

// cutOnce returns the name of a message to several rooms, or "", and its other exceptions.
func cutOnce(e *envelope) (name string, except []string) {
	if last := len(e.except) - 1; last >= 0 {
		if number, ok := strings.CutPrefix(e.except[last], onceKey); ok {
			return e.node + number, e.except[:last]
		}
	}
	return "", e.except
}

// onceLimit is the number of messages that are remembered of a member. It bounds what a client
// can have the node keep by naming positions.
const onceLimit = 1000

// remember notes that the member has got a message, if it may get it in another room, too: one
// that it hasn't entered, and where it has named a position. m.mu is held.
func (m *Member) remember(msg *roomMessage) {
	p := m.places
	if msg.name == "" || !slices.ContainsFunc(msg.before, p.namedIn) {
		return
	}
	if len(p.once) == onceLimit {
		p.once = slices.Delete(p.once, 0, 1)
	}
	p.once = append(p.once, msg.name)
}

func (p *places) namedIn(key string) bool {
	room, ok := strings.CutPrefix(key, roomKey)
	_, named := p.named[room]
	return ok && named
}

// remembers reports whether the member has got a message in another room.
func (m *Member) remembers(msg *roomMessage) bool {
	if msg.name == "" || m.places == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.places.once, msg.name)
}
