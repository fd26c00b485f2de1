package socketio

import (
	"context"
	"slices"
	"sync"

	"github.com/limpet-go/limpet/bus/socketio/internal/jsvalue"
)

// deliver sorts out what came: answers go to who asked, all else to work. err is
// why a message can't be read.
func (c *Cluster) deliver(ctx context.Context, m *message, err error, inbox chan<- *message) {
	switch {
	case err != nil:
		c.foreign.Do(func() {
			c.opts.Logger.Warn("a message of the Socket.IO cluster makes no sense; further ones aren't logged",
				"nsp", c.nsp, "err", err)
		})
	case m.nsp != c.nsp || m.uid == c.uid:
	case m.kind == adapterClose:
		c.gone(m.uid)
	case m.kind.answers():
		c.nodes.heard(m.uid)
		if p := c.pendingRequest(m.id); p != nil {
			p.add(m, false)
		}
	case m.uid == "" && c.pendingRequest(m.id) != nil: // its own request, of Legacy
	default:
		c.nodes.heard(m.uid)
		if c.guest {
			return
		}
		select {
		case inbox <- m:
		case <-ctx.Done():
		}
	}
}

// work does what others want until ctx ends, one thing after the other.
func (c *Cluster) work(ctx context.Context, inbox <-chan *message) {
	for {
		select {
		case m := <-inbox:
			c.do(m)
		case <-ctx.Done():
			return
		}
	}
}

func (c *Cluster) do(m *message) {
	reply := func(a *message) { c.reply(m, a) }
	switch m.kind {
	case initialHeartbeat:
		c.tell(context.Background(), heartbeat)
	case broadcast:
		c.emit(m, reply)
	case serverSideEmit:
		e, ok := m.toEvent()
		if !ok || c.opts.ServerSideEmit == nil {
			return
		}
		if m.id != "" {
			var once sync.Once
			e.Ack = func(answer any) { once.Do(func() { reply(&message{kind: serverSideAnswer, value: answer}) }) }
		}
		c.opts.ServerSideEmit(e)
	case join, leave, disconnect:
		// Only a request for a single socket, of Legacy, is answered, and only by
		// who has it.
		if n := c.act(m); n > 0 && m.id != "" {
			reply(&message{kind: done})
		}
	default:
		if a := c.answer(m); a != nil {
			reply(a)
		}
	}
}

// reply sends an answer to a message.
func (c *Cluster) reply(to, answer *message) {
	answer.nsp, answer.uid, answer.asker, answer.id = c.nsp, c.uid, to.uid, to.id
	ctx, cancel := context.WithTimeout(context.Background(), defaultTimeout)
	defer cancel()
	if err := publish(ctx, c.link, c.adapter, answer); err != nil {
		c.lost(err)
	}
}

func (c *Cluster) lost(err error) {
	c.opts.Logger.Warn("an answer to a member of the Socket.IO cluster is lost", "nsp", c.nsp, "err", err)
}

// answer returns this member's own answer to a question, nil if it has none.
func (c *Cluster) answer(m *message) *message {
	switch m.kind {
	case fetchSockets:
		return &message{kind: socketList, sockets: c.find(m.target)}
	case socketIDs:
		return &message{kind: socketIDList, sockets: c.find(m.target)}
	case allRooms:
		return &message{kind: roomList, rooms: roomsIn(c.find(target{}))}
	case roomsOf:
		if socket, ok := c.socket(m.socketID); ok {
			return &message{kind: roomList, rooms: socket.Rooms}
		}
	case customRequest:
		a := &message{kind: customAnswer}
		if c.opts.CustomRequest != nil {
			a.value = c.opts.CustomRequest(m.value)
		}
		return a
	}
	return nil
}

// find describes own sockets. A socket is in the room of its ID, whatever Find
// says.
func (c *Cluster) find(t target) []Socket {
	sockets := slices.Clone(c.opts.Sockets.Find(t.selection()))
	for i := range sockets {
		if s := &sockets[i]; !slices.Contains(s.Rooms, s.ID) {
			s.Rooms = append([]string{s.ID}, s.Rooms...)
		}
	}
	return sockets
}

// socket describes an own socket. What Find returns for its ID may be those in a
// room of the same name.
func (c *Cluster) socket(id string) (s Socket, ok bool) {
	return byID(c.find(target{to: []string{id}}), id)
}

func byID(sockets []Socket, id string) (s Socket, ok bool) {
	i := slices.IndexFunc(sockets, func(s Socket) bool { return s.ID == id })
	if i < 0 {
		return s, false
	}
	return sockets[i], true
}

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

// act makes own sockets join, leave or go, and returns their number.
func (c *Cluster) act(m *message) int {
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

// emit gives a broadcast to own sockets. reply gets their number and their
// acknowledgements, if those are wanted.
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

// actLocally does to own sockets what is sent to all, if it is for sockets: they
// get its arguments as they would from another member.
func (c *Cluster) actLocally(m *message, reply func(*message)) error {
	if _, none := c.opts.Sockets.(noSockets); none {
		return nil
	}
	switch m.kind {
	case join, leave, disconnect:
		c.act(m)
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

// asRead returns what other members would read of a value.
func asRead(v any) (any, error) {
	v, err := jsvalue.Normalize(v)
	if err != nil {
		return nil, err
	}
	return jsvalue.ParseMsgpack(jsvalue.Timestamps.AppendMsgpack(nil, v))
}

// asRead makes an answer like that of another member.
func (m *message) asRead() (err error) {
	m.value, err = asRead(m.value)
	for i := 0; i < len(m.sockets) && err == nil; i++ {
		m.sockets[i].Data, err = asRead(m.sockets[i].Data)
	}
	return err
}

func (m *message) toEvent() (Event, bool) {
	if len(m.event) == 0 {
		return Event{}, false
	}
	name, ok := jsvalue.PropertyName(m.event[0])
	return Event{Name: name, Args: m.event[1:], Volatile: m.volatile}, ok
}

func (t *target) selection() Selection { return Selection{Rooms: t.to, Except: t.except} }
