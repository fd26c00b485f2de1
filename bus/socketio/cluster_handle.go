package socketio

import (
	"context"
	"sync"
)

// deliver sorts a message that has arrived. Answers go to the request that waits for
// them, everything else to handle by way of the inbox. Answers don't pass through
// the inbox, so that a function that handle calls may wait for some. err says why a
// message can't be read; only the first such message is logged, since whoever sends
// them will send more.
func (c *Cluster) deliver(ctx context.Context, m *message, err error, inbox chan<- *message) {
	switch {
	case err != nil:
		c.foreign.Do(func() {
			c.opts.Logger.Warn("a message of the Socket.IO cluster makes no sense; further ones aren't logged",
				"nsp", c.nsp, "err", err)
		})
	case m.nsp != c.nsp || m.uid == c.uid:
	case m.kind == adapterClose:
		c.memberLeft(m.uid)
	case m.kind.answers():
		c.members.saw(m.uid)
		if p := c.pendingRequest(m.id); p != nil {
			p.add(m, false)
		}
	case m.uid == "" && c.pendingRequest(m.id) != nil: // its own request: with Legacy it doesn't name the sender
	default:
		c.members.saw(m.uid)
		if c.guest {
			return
		}
		select {
		case inbox <- m:
		case <-ctx.Done():
		}
	}
}

// handleAll handles messages one after the other until ctx ends, so that sockets get
// them in the order in which they arrived.
func (c *Cluster) handleAll(ctx context.Context, inbox <-chan *message) {
	for {
		select {
		case m := <-inbox:
			c.handle(ctx, m)
		case <-ctx.Done():
			return
		}
	}
}

// handle does what another member wants and replies if it wants an answer. ctx is that of
// Run: it doesn't wait for an answer to be sent, and nobody is there for one that comes later.
func (c *Cluster) handle(ctx context.Context, m *message) {
	reply := func(a *message) { c.reply(ctx, m, a) }
	switch m.kind {
	case initialHeartbeat:
		c.announce(ctx, heartbeat)
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
		// Only Legacy's request for a single socket has an ID, and only the member
		// that has the socket answers it.
		if n := c.apply(m); n > 0 && m.id != "" {
			reply(&message{kind: done})
		}
	default:
		if a := c.answer(m); a != nil {
			reply(a)
		}
	}
}

// reply sends an answer to a message of another member.
func (c *Cluster) reply(ctx context.Context, to, answer *message) {
	answer.nsp, answer.uid, answer.asker, answer.id = c.nsp, c.uid, to.uid, to.id
	limited, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	if err := publish(limited, c.link, c.adapter, answer); err != nil && ctx.Err() == nil {
		c.logLostAnswer(err)
	}
}

// logLostAnswer logs that an answer could not be sent, or not be made.
func (c *Cluster) logLostAnswer(err error) {
	c.opts.Logger.Warn("an answer to a member of the Socket.IO cluster is lost", "nsp", c.nsp, "err", err)
}

// answer returns the answer of this member to a request, nil if it has none to give.
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
