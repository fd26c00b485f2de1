package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Send sends a message to the members that who selects: first to those of this node,
// then over the bus to those of the others. It doesn't wait for members. An error says
// that the members of other nodes, or some of them, were not reached; that who selects
// nobody is no error. With [Options].Recover, what is sent to rooms comes to the members of
// this node over the bus, too, so that it comes to all nodes in one order.
func (h *Hub) Send(ctx context.Context, who Who, f *Frame) error {
	number := h.sent.Add(1)
	e := envelope{kind: kindText, payload: f.payload}
	if f.binary {
		e.kind = kindBinary
	}
	if h.history != nil && len(who.Rooms) > 1 {
		e.except = []string{onceKey + strconv.FormatInt(number, 36)}
	}
	return h.dispatch(ctx, who, e, f)
}

// Join puts the members that who selects into rooms. It waits neither for the other
// nodes nor until messages of other nodes to these rooms arrive. An error says that the
// members of other nodes, or some of them, were not reached.
func (h *Hub) Join(ctx context.Context, who Who, rooms ...string) error {
	return h.dispatch(ctx, who, envelope{kind: kindJoin, payload: appendStrings(nil, rooms)}, nil)
}

// Leave takes the members that who selects out of rooms, in the manner of [Hub.Join].
func (h *Hub) Leave(ctx context.Context, who Who, rooms ...string) error {
	return h.dispatch(ctx, who, envelope{kind: kindLeave, payload: appendStrings(nil, rooms)}, nil)
}

// Disconnect closes the members that who selects, as [Member.Close] does. Messages
// that were sent to the same rooms or IDs before reach them first. An error says that
// the members of other nodes, or some of them, were not reached.
func (h *Hub) Disconnect(ctx context.Context, who Who, code int, reason string) error {
	return h.dispatch(ctx, who, envelope{kind: kindDisconnect, payload: marshal(farewell{Code: code, Reason: reason})}, nil)
}

// farewell is the payload of an envelope that disconnects.
type farewell struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

// marshal is for values whose marshalling can't fail.
func marshal(v any) []byte {
	b, _ := json.Marshal(v)
	return b
}

// dispatch carries an envelope out for the members of this node, and sends it to the
// other nodes. It is sent on the topic of each room and ID that it is for: a bus keeps
// the order of what one sender publishes on one topic, so the messages to one room
// stay in order. f is the message in the envelope, or nil if it is none.
func (h *Hub) dispatch(ctx context.Context, who Who, e envelope, f *Frame) error {
	e.node, e.to, e.except = h.id, who.to(), append(who.except(), e.except...)
	for _, key := range e.to {
		if h.ordered(key) && !who.Local {
			continue // it comes back over the bus
		}
		if err := h.apply(&e, f, key, position{}); err != nil {
			return fmt.Errorf("hub: %w", err)
		}
	}
	if who.Local || len(e.to) == 0 {
		return nil
	}
	data := e.append(nil)
	failed := make(chan error)
	for _, key := range e.to[1:] { // at the same time: each may take until the time limit of the bus
		go func() { failed <- h.bus.Publish(ctx, h.topic(key), data) }()
	}
	err := h.bus.Publish(ctx, h.topic(e.to[0]), data)
	for range e.to[1:] {
		err = errors.Join(err, <-failed)
	}
	if err != nil {
		return fmt.Errorf("hub: other nodes were not reached: %w", err)
	}
	return nil
}

// ordered reports whether the members of this node, too, get what is sent to a key over the
// bus.
func (h *Hub) ordered(key string) bool { return h.history != nil && strings.HasPrefix(key, roomKey) }

// apply carries an envelope out for the members of this node that one of its keys
// selects. f is the message in the envelope, or nil if none was made of it yet, and at its
// position, if it has one.
func (h *Hub) apply(e *envelope, f *Frame, key string, at position) error {
	i := slices.Index(e.to, key)
	if i < 0 {
		return errors.New("it came on a topic that it isn't for")
	}
	var do func(*Member)
	switch e.kind {
	case kindText, kindBinary:
		if f == nil {
			f = e.frame()
		}
		if strings.HasPrefix(key, roomKey) {
			h.deliver(newRoomMessage(e, i, f, at), key)
			return nil
		}
		do = func(m *Member) { m.Send(f) }
	case kindDisconnect:
		var last farewell
		if err := json.Unmarshal(e.payload, &last); err != nil {
			return err
		}
		do = func(m *Member) { m.Close(last.Code, last.Reason) }
	default:
		in := input{b: e.payload}
		rooms := keys(in.strings(), nil)
		if in.short {
			return errShort
		}
		do = func(m *Member) { m.enter(rooms...) }
		if e.kind == kindLeave {
			do = func(m *Member) { m.leave(rooms...) }
		}
	}
	for m := range h.selected(e.to, i, e.except) {
		do(m)
	}
	return nil
}

// deliver gives a message to the members of this node that are in its room.
func (h *Hub) deliver(msg *roomMessage, key string) {
	for m := range h.rooms.members(key) {
		if m.places != nil {
			m.deliver(key, msg)
		} else if msg.isFor(m, m.is) {
			m.Send(msg.frame)
		}
	}
}

// selected iterates over the members that the key to[i] selects. Those that a key
// before it selects, too, and those that are excepted are left out.
func (h *Hub) selected(to []string, i int, except []string) iter.Seq[*Member] {
	members := h.rooms.members(to[i])
	if i == 0 && len(except) == 0 {
		return members
	}
	return func(yield func(*Member) bool) {
		for m := range members {
			if !m.is(to[:i]) && !m.is(except) && !yield(m) {
				return
			}
		}
	}
}
