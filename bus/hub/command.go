package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
)

// Send sends a message to the members that who selects: to those of this node at
// once, then over the bus. An error says that the members of other nodes, or some
// of them, were not reached.
//
// Send doesn't wait for members. A member that is gone, or that nobody knows, is
// no error.
func (h *Hub) Send(ctx context.Context, who Who, f *Frame) error {
	e := envelope{kind: kindText, payload: f.payload}
	if f.binary {
		e.kind = kindBinary
	}
	return h.dispatch(ctx, who, e, f)
}

// Join has the members that who selects enter rooms. An error says that other
// nodes weren't reached; Join doesn't wait for them, nor until messages from
// there arrive.
func (h *Hub) Join(ctx context.Context, who Who, rooms ...string) error {
	return h.dispatch(ctx, who, envelope{kind: kindJoin, payload: appendStrings(nil, rooms)}, nil)
}

// Leave has the members that who selects leave rooms, as [Hub.Join] has them
// enter.
func (h *Hub) Leave(ctx context.Context, who Who, rooms ...string) error {
	return h.dispatch(ctx, who, envelope{kind: kindLeave, payload: appendStrings(nil, rooms)}, nil)
}

// Disconnect closes the members that who selects, as [Member.Close] does. What
// was sent to the same rooms or IDs before reaches them first. An error says that
// other nodes weren't reached.
func (h *Hub) Disconnect(ctx context.Context, who Who, code int, reason string) error {
	return h.dispatch(ctx, who, envelope{kind: kindDisconnect, payload: marshal(farewell{Code: code, Reason: reason})}, nil)
}

// farewell is the payload of a disconnect.
type farewell struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

// marshal is for what can't fail.
func marshal(v any) []byte {
	b, _ := json.Marshal(v)
	return b
}

// dispatch does what an envelope says to the members of this node, and sends it
// to the others: on the topic of each room and ID, so that one sender's messages
// to one room stay in order on any bus.
func (h *Hub) dispatch(ctx context.Context, who Who, e envelope, f *Frame) error {
	e.node, e.to, e.except = h.id, who.to(), who.except()
	for _, key := range e.to {
		if err := h.apply(&e, f, key); err != nil {
			return fmt.Errorf("hub: %w", err)
		}
	}
	if who.Local || len(e.to) == 0 {
		return nil
	}
	data := e.append(nil)
	failed := make(chan error)
	for _, key := range e.to[1:] { // side by side: each may take until the bus's time limit
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

// apply does what an envelope says to the members of one of those it is to. f is
// the message, if there is one already.
func (h *Hub) apply(e *envelope, f *Frame, key string) error {
	i := slices.Index(e.to, key)
	if i < 0 {
		return errors.New("it came on a topic that it isn't for")
	}
	var do func(*Member)
	switch e.kind {
	case kindText, kindBinary:
		if f == nil {
			f = &Frame{payload: e.payload, binary: e.kind == kindBinary}
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

// selected iterates over the members of to[i] that weren't selected by those
// before it, and aren't excepted.
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
