package socketio

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A Target selects clients of a namespace and does something to them, by way of the
// [Emitter] or the [Cluster] that it is from. A Target never changes: a method that
// narrows the selection returns another Target. So a Target may be kept, and used by
// several goroutines.
//
// When a method returns no error, Redis has what was sent. The nodes act on it a
// moment later; a node that isn't running, or isn't connected to Redis, never does.
// Only [Streams] keeps messages for nodes that are running but not connected.
//
// Nothing is sent twice. After an error nobody knows whether Redis has the message.
// A method returns an error when ctx ends, or within three seconds. For so long it waits
// while Redis can't be connected to, since nothing was sent then. Once a message is sent,
// Redis has a second to answer.
//
// A message is sent at once if no other one of the same Emitter or Cluster is under way.
// Those that come meanwhile are sent together, which costs a fraction of the processor's
// time for each.
type Target struct {
	via sender
	nsp string
	target
}

// sender is an Emitter or a Cluster.
type sender interface {
	// send puts the sender's ID into m.uid and publishes m.
	send(ctx context.Context, m *message) error
	// redis returns the adapter and the link for a temporary Cluster (a guest, see
	// Cluster) that makes one request for the sender.
	redis() (Adapter, link)
}

// ErrReserved is wrapped by the error for an event whose name is reserved for
// Socket.IO's own events.
var ErrReserved = errors.New("reserved event name")

// Of selects everybody in a namespace. It adds the slash that the name of a
// namespace begins with, if there is none.
func (t Target) Of(namespace string) Target {
	if len(namespace) == 0 || namespace[0] != '/' {
		namespace = "/" + namespace
	}
	return Target{via: t.via, nsp: namespace}
}

// To selects the sockets in any of the rooms, in addition to those of rooms that
// were selected before. A Target for which To was never called selects everybody in
// the namespace. The ID of a socket is the name of a room that only this socket is
// in.
func (t Target) To(rooms ...string) Target {
	t.to = union(t.to, rooms)
	return t
}

// Except leaves out the sockets that are in any of the rooms. Nodes of [Legacy] can
// leave out sockets only by their IDs: with another name, Emit returns an error.
func (t Target) Except(rooms ...string) Target {
	t.except = union(t.except, rooms)
	return t
}

// Volatile lets a client miss events if it can't receive them at the moment.
func (t Target) Volatile() Target {
	t.volatile = true
	return t
}

// Compress says whether a node may compress events. It is true by default, and
// matters only to nodes that are configured to compress.
func (t Target) Compress(compress bool) Target {
	t.uncompressed = !compress
	return t
}

// Emit sends an event with its arguments, whose types are listed in the package's
// documentation. The error wraps [ErrReserved] if the name is reserved, and
// [errors.ErrUnsupported] if the nodes can't do what is asked.
func (t Target) Emit(ctx context.Context, event string, args ...any) error {
	m := t.message(broadcast)
	var err error
	if m.event, err = eventOf(event, args, reservedEvents); err != nil {
		return err
	}
	return t.via.send(ctx, m)
}

// SocketsJoin makes the sockets join rooms. With [Legacy], To must name single
// sockets by their IDs, else the error wraps [errors.ErrUnsupported]. The same holds
// for SocketsLeave and DisconnectSockets.
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

// DisconnectSockets disconnects the sockets from the namespace. If close is set,
// their connections are closed.
func (t Target) DisconnectSockets(ctx context.Context, close bool) error {
	m := t.message(disconnect)
	m.close = close
	return t.via.send(ctx, m)
}

// ServerSideEmit sends an event to the servers that have the namespace, not to
// clients. It returns an error if the Target selects rooms. [PubSub] sends the
// arguments as JSON, so that servers get a []byte as {"type": "Buffer"}. [Legacy]
// has nothing like it: the error wraps [errors.ErrUnsupported].
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

// eventOf returns an event as it is sent: a list of its name and its arguments.
func eventOf(event string, args []any, reserved []string) ([]any, error) {
	if slices.Contains(reserved, event) {
		return nil, fmt.Errorf("socketio: %q: %w", event, ErrReserved)
	}
	return append([]any{event}, args...), nil
}

// union returns a new list of the names and those of more that aren't among them.
func union(names, more []string) []string {
	names = slices.Clone(names)
	for _, s := range more {
		if !slices.Contains(names, s) {
			names = append(names, s)
		}
	}
	return names
}
