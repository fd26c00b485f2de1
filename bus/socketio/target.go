package socketio

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A Target says which clients of a namespace are meant, and does something to
// them by way of the [Emitter] or the [Cluster] that it is from. It is never
// changed: each method that narrows it down returns another one. So it may be
// kept and used by several goroutines.
//
// What is sent was handed to Redis when a method returns without an error. The
// nodes act on it a moment later, or not at all when they aren't there: only
// [Streams] keeps it for them, and only while they run.
//
// Nothing is sent twice: after an error nobody knows whether Redis has it. ctx
// ends the wait for Redis, if the client heeds the deadlines of contexts:
// go-redis does with ContextTimeoutEnabled only, and has limits of its own beside.
type Target struct {
	via sender
	nsp string
	target
}

// sender is an Emitter or a Cluster.
type sender interface {
	// send fills in what the message lacks of its sender and sends it.
	send(ctx context.Context, m *message) error
	// redis returns what both need to ask the nodes something.
	redis() (Adapter, link)
}

// ErrReserved is in the error for an event that has a name by which Socket.IO
// calls events of its own.
var ErrReserved = errors.New("reserved event name")

// Of returns everybody in a namespace. What its name lacks is a slash in front.
func (t Target) Of(namespace string) Target {
	if len(namespace) == 0 || namespace[0] != '/' {
		namespace = "/" + namespace
	}
	return Target{via: t.via, nsp: namespace}
}

// To adds the sockets in any of the rooms. Without a call of it everybody in the
// namespace is meant. The ID of a socket is the name of its own room.
func (t Target) To(rooms ...string) Target {
	t.to = union(t.to, rooms)
	return t
}

// Except leaves out the sockets that are in any of the rooms. The nodes of
// [Legacy] can leave out sockets by their IDs only: other names are an error of
// Emit.
func (t Target) Except(rooms ...string) Target {
	t.except = union(t.except, rooms)
	return t
}

// Volatile lets a client miss events while it can't receive them.
func (t Target) Volatile() Target {
	t.volatile = true
	return t
}

// Compress says whether events are compressed, where a node does that at all.
// They are, if nothing is said.
func (t Target) Compress(compress bool) Target {
	t.uncompressed = !compress
	return t
}

// Emit sends an event with its arguments: what they may be is said in the
// package's documentation. The error wraps [ErrReserved] for a name that is
// reserved.
func (t Target) Emit(ctx context.Context, event string, args ...any) error {
	m := t.message(broadcast)
	var err error
	if m.event, err = eventOf(event, args, reservedEvents); err != nil {
		return err
	}
	return t.via.send(ctx, m)
}

// SocketsJoin makes the sockets join rooms. With [Legacy] they must be named by
// their IDs, else the error wraps errors.ErrUnsupported; the same holds for
// SocketsLeave and DisconnectSockets.
func (t Target) SocketsJoin(ctx context.Context, rooms ...string) error {
	m := t.message(join)
	m.rooms = rooms
	return t.via.send(ctx, m)
}

// SocketsLeave makes the sockets leave rooms.
func (t Target) SocketsLeave(ctx context.Context, rooms ...string) error {
	m := t.message(leave)
	m.rooms = rooms
	return t.via.send(ctx, m)
}

// DisconnectSockets disconnects the sockets from the namespace or, if close is
// set, closes their connections.
func (t Target) DisconnectSockets(ctx context.Context, close bool) error {
	m := t.message(disconnect)
	m.close = close
	return t.via.send(ctx, m)
}

// ServerSideEmit sends an event to the nodes themselves, to all that have the
// namespace. The rooms of a Target mean nothing here: they are an error.
// [PubSub] passes arguments on as JSON, where a []byte is {"type":"Buffer"};
// [Legacy] has nothing like it, and the error wraps errors.ErrUnsupported.
func (t Target) ServerSideEmit(ctx context.Context, event string, args ...any) error {
	if err := t.isEverybody(); err != nil {
		return err
	}
	m := t.message(serverSideEmit)
	var err error
	if m.event, err = eventOf(event, args, reservedOfNodes); err != nil {
		return err
	}
	return t.via.send(ctx, m)
}

func (t Target) message(k kind) *message {
	return &message{kind: k, nsp: t.nsp, target: t.target}
}

var (
	reservedEvents = []string{
		"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener",
	}
	reservedOfNodes = []string{"connect", "connection", "new_namespace"}
)

func eventOf(event string, args []any, reserved []string) ([]any, error) {
	if slices.Contains(reserved, event) {
		return nil, fmt.Errorf("socketio: %q: %w", event, ErrReserved)
	}
	return append([]any{event}, args...), nil
}

// union returns a list of its own.
func union(names, more []string) []string {
	names = slices.Clone(names)
	for _, s := range more {
		if !slices.Contains(names, s) {
			names = append(names, s)
		}
	}
	return names
}
