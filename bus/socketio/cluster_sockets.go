package socketio

import (
	"slices"

	"github.com/limpet-go/limpet/bus/socketio/internal/jsvalue"
)

// find describes own sockets. It adds the room of a socket's ID where Sockets.Find
// has left it out.
func (c *Cluster) find(t target) []Socket {
	sockets := slices.Clone(c.opts.Sockets.Find(t.selection()))
	for i := range sockets {
		if s := &sockets[i]; !slices.Contains(s.Rooms, s.ID) {
			s.Rooms = append([]string{s.ID}, s.Rooms...)
		}
	}
	return sockets
}

// socket describes the own socket with an ID. A room may have the same name, so Find
// may return sockets with other IDs as well.
func (c *Cluster) socket(id string) (s Socket, ok bool) {
	return byID(c.find(target{to: []string{id}}), id)
}

// apply makes own sockets join or leave rooms or disconnects them, and returns their
// number. If requests name single sockets, those in a room of the same name aren't
// meant.
func (c *Cluster) apply(m *message) int {
	if c.adapter.singleSockets() {
		if _, ok := c.socket(m.to[0]); !ok {
			return 0
		}
	}
	var a Action
	switch m.kind {
	case join:
		a = Join{m.rooms}
	case leave:
		a = Leave{m.rooms}
	case disconnect:
		a = Disconnect{m.close}
	}
	return c.opts.Sockets.Do(m.selection(), a)
}

// emit hands the event of a broadcast to own sockets. If the sender wants
// acknowledgements, reply gets the number of sockets that will give one and then
// each acknowledgement.
func (c *Cluster) emit(m *message, reply func(*message)) {
	e, ok := m.toEvent()
	if !ok {
		return
	}
	if m.id == "" {
		c.opts.Sockets.Do(m.selection(), e)
		return
	}
	e.Ack = func(answer any) { reply(&message{kind: ack, value: answer}) }
	reply(&message{kind: clientCount, count: c.opts.Sockets.Do(m.selection(), e)})
}

// applyLocally does to own sockets what a message of this member does to those of
// others. Arguments are converted to what another member would read, so that a
// socket gets the same wherever it is.
func (c *Cluster) applyLocally(m *message, reply func(*message)) error {
	if _, none := c.opts.Sockets.(noSockets); none {
		return nil
	}
	switch m.kind {
	case join, leave, disconnect:
		c.apply(m)
	case broadcast:
		read, err := asRead(m.event)
		if err != nil {
			return err
		}
		own := *m
		own.event, _ = read.([]any)
		c.emit(&own, reply)
	}
	return nil
}

// asRead returns what another member would read of a value.
func asRead(v any) (any, error) {
	v, err := jsvalue.Normalize(v)
	if err != nil {
		return nil, err
	}
	return jsvalue.ParseMsgpack(jsvalue.Timestamps.AppendMsgpack(nil, v))
}

// asRead makes an answer of this member what another member would read of it.
func (m *message) asRead() (err error) {
	m.value, err = asRead(m.value)
	for i := 0; i < len(m.sockets) && err == nil; i++ {
		m.sockets[i].Data, err = asRead(m.sockets[i].Data)
	}
	return err
}

// toEvent returns the event of a message. It is false if the event has no name.
func (m *message) toEvent() (Event, bool) {
	if len(m.event) == 0 {
		return Event{}, false
	}
	name, ok := jsvalue.PropertyName(m.event[0])
	return Event{Name: name, Args: m.event[1:], Volatile: m.volatile}, ok
}

func (t *target) selection() Selection { return Selection{Rooms: t.to, Except: t.except} }

// byID returns the socket with an ID.
func byID(sockets []Socket, id string) (s Socket, ok bool) {
	i := slices.IndexFunc(sockets, func(s Socket) bool { return s.ID == id })
	if i < 0 {
		return s, false
	}
	return sockets[i], true
}

// roomsIn returns the rooms of sockets, each once.
func roomsIn(sockets []Socket) []string {
	seen := make(map[string]bool)
	var rooms []string
	for _, s := range sockets {
		for _, room := range s.Rooms {
			if !seen[room] {
				seen[room] = true
				rooms = append(rooms, room)
			}
		}
	}
	return rooms
}

// noSockets are the Sockets of a Cluster that has none.
type noSockets struct{}

func (noSockets) Find(Selection) []Socket  { return nil }
func (noSockets) Do(Selection, Action) int { return 0 }
