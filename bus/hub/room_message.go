package hub

import (
	"strings"
	"sync"

	"github.com/limpet-go/limpet/bus"
)

// A roomMessage is a message to a room, as it has come over the bus, or stands in its
// history. It is built once for all members of this node.
type roomMessage struct {
	room   string
	at     position // none if it can't be recovered
	before []string // the keys for which the message was sent, too, and which come first
	except []string
	name   string // the same in each of several rooms; "" if there is only one
	frame  *Frame // nil if it is none for members

	build  sync.Once
	headed *Frame
}

// newRoomMessage returns the message in an envelope that has come on the topic of to[i].
func newRoomMessage(e *envelope, i int, f *Frame, at position) *roomMessage {
	room, _ := strings.CutPrefix(e.to[i], roomKey)
	name, except := cutOnce(e)
	return &roomMessage{room: room, at: at, before: e.to[:i], except: except, name: name, frame: f}
}

// recalled returns a message of a room's history.
func recalled(key string, msg bus.Message) *roomMessage {
	at := parsePosition(msg.ID)
	e, err := parseEnvelope(msg.Data)
	if err == nil && (e.kind == kindText || e.kind == kindBinary) {
		for i, to := range e.to {
			if to == key {
				return newRoomMessage(&e, i, e.frame(), at)
			}
		}
	}
	return &roomMessage{at: at}
}

// isFor reports whether the message is for a member of its room. gets reports whether the member
// gets it for one of the keys before.
func (msg *roomMessage) isFor(m *Member, gets func(keys []string) bool) bool {
	return (len(msg.before) == 0 || !gets(msg.before)) && (len(msg.except) == 0 || !m.is(msg.except)) && !m.remembers(msg)
}

// frameFor returns what a member of the room gets that speaks [Protocol], or nil if that is
// nothing. is reports whether it is the message, and not only its position.
func (msg *roomMessage) frameFor(m *Member, gets func(keys []string) bool) (f *Frame, is bool) {
	switch {
	case msg.frame == nil:
		return nil, false
	case msg.isFor(m, gets):
		msg.build.Do(func() {
			msg.headed = msg.frame.behind(marshal(line{Room: &msg.room, ID: msg.at.String()}))
		})
		return msg.headed, true
	case msg.at == position{}:
		return nil, false
	}
	// Else a member that nothing is for would come back with a position that is no more.
	return line{Room: &msg.room, ID: msg.at.String()}.frame(), false
}
