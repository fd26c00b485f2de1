package socketio

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Timeout limits how long methods that wait for answers wait, such as FetchSockets
// and EmitWithAck. The default is 5 s. The end of ctx ends the wait earlier.
//
// If answers are missing then, the methods return those that arrived and an
// [*IncompleteError].
//
// A [Cluster] that asks in its own namespace uses its own connection. An [Emitter],
// and a Cluster that asks in another namespace, connects to Redis for each call. It
// isn't a member meanwhile, so no member waits for answers from it.
func (t Target) Timeout(limit time.Duration) Target {
	t.timeout = milliseconds(limit)
	return t
}

// EmitWithAck emits an event and returns the acknowledgements of all clients that
// got it, on all nodes. Nodes of Socket.IO 2 and 3 can't do that: the error wraps
// [errors.ErrUnsupported].
func (t Target) EmitWithAck(ctx context.Context, event string, args ...any) (answers []any, err error) {
	m := t.message(broadcast)
	if m.event, err = eventOf(event, args, reservedEvents); err != nil {
		return nil, err
	}
	return values(t.ask(ctx, m))
}

// ServerSideEmitWithAck sends an event to all other servers that have the namespace
// and returns their acknowledgements. Nodes of Socket.IO 2 and 3 can't do that: the
// error wraps [errors.ErrUnsupported].
func (t Target) ServerSideEmitWithAck(ctx context.Context, event string, args ...any) (answers []any, err error) {
	m := t.message(serverSideEmit)
	if m.event, err = eventOf(event, args, reservedOfNodes); err != nil {
		return nil, err
	}
	return values(t.askNodes(ctx, m))
}

// FetchSockets describes the selected sockets of all nodes. Nodes of [Legacy] tell
// only the IDs, and can't except sockets: the error wraps [errors.ErrUnsupported]
// then.
func (t Target) FetchSockets(ctx context.Context) ([]Socket, error) {
	answers, err := t.ask(ctx, t.message(fetchSockets))
	return socketsOf(answers), err
}

// AllRooms returns the names of all rooms of all nodes, in no order. With [Sharded]
// and [Streams] all sockets are fetched to learn that. It returns an error if the
// Target selects rooms.
func (t Target) AllRooms(ctx context.Context) ([]string, error) {
	answers, err := t.askNodes(ctx, t.message(allRooms))
	all := socketsOf(answers)
	for _, a := range answers {
		all = append(all, Socket{Rooms: a.rooms})
	}
	return roomsIn(all), err
}

// SocketRooms returns the rooms of the socket with an ID, whatever sockets the
// Target selects. There are none if no node has the socket. A node of [Legacy] that
// hasn't the socket doesn't answer, so the error is an [*IncompleteError] then.
// Nodes of Socket.IO 3 can't tell rooms: the error wraps [errors.ErrUnsupported].
func (t Target) SocketRooms(ctx context.Context, socketID string) ([]string, error) {
	t.to, t.except = nil, nil
	m := t.message(roomsOf)
	m.socketID = socketID
	answers, err := t.ask(ctx, m)
	for _, a := range answers {
		if a.kind == roomList {
			return a.rooms, err
		}
	}
	socket, _ := byID(socketsOf(answers), socketID)
	return socket.Rooms, err
}

// CustomRequest sends data to all other nodes of Socket.IO 2 and returns what their
// customHooks answer. Nodes of Socket.IO 4 have [Target.ServerSideEmitWithAck]
// instead.
func (t Target) CustomRequest(ctx context.Context, data any) (answers []any, err error) {
	m := t.message(customRequest)
	m.value = data
	return values(t.askNodes(ctx, m))
}

// ServerCount returns the number of servers that have the namespace.
func (t Target) ServerCount(ctx context.Context) (int, error) {
	c, leave, ctx, err := t.join(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	n, err := c.others(ctx)
	if !c.guest && err == nil {
		n++
	}
	return n, err
}

// isEverybody returns an error if the Target selects rooms, which a request to nodes
// can't.
func (t Target) isEverybody() error {
	if len(t.to) > 0 || len(t.except) > 0 {
		return errors.New("socketio: a request to nodes has no rooms")
	}
	return nil
}

// askNodes sends a request that isn't about a selection of sockets.
func (t Target) askNodes(ctx context.Context, m *message) ([]*message, error) {
	if err := t.isEverybody(); err != nil {
		return nil, err
	}
	return t.ask(ctx, m)
}

// ask sends a request and returns the answers that arrive within the time limit.
func (t Target) ask(ctx context.Context, m *message) ([]*message, error) {
	c, leave, ctx, err := t.join(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return c.ask(ctx, m)
}

// join returns the Cluster that sends a request, with a ctx that has the time limit:
// the one that the Target is from or, in another namespace and for an Emitter, a
// guest that runs until leave is called. leave must be called in either case.
func (t Target) join(ctx context.Context) (c *Cluster, leave func(), _ context.Context, err error) {
	limit := defaultTimeout
	if t.timeout > 0 {
		limit = time.Duration(t.timeout * float64(time.Millisecond))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	if c, ok := t.via.(*Cluster); ok && c.nsp == t.nsp {
		return c, cancel, ctx, nil
	}
	adapter, link := t.via.redis()
	// What goes wrong is in the error that is returned, so nothing is logged.
	opts := &ClusterOptions{Namespace: t.nsp, Logger: slog.New(slog.DiscardHandler)}
	if c, err = newCluster(link, adapter, opts); err != nil {
		cancel()
		return nil, nil, nil, err
	}
	c.guest = true
	if s := adapter.stream(t.nsp); s != nil && s.heartbeats {
		c.uid = emitterUID // which others don't count as a member
	}
	var run sync.WaitGroup
	run.Go(func() { _ = c.Run(ctx) }) // the request returns its error
	return c, func() { cancel(); run.Wait() }, ctx, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// values returns the values of answers.
func values(answers []*message, err error) ([]any, error) {
	var all []any
	for _, a := range answers {
		all = append(all, a.value)
	}
	return all, err
}

// socketsOf returns the sockets of answers.
func socketsOf(answers []*message) (sockets []Socket) {
	for _, a := range answers {
		sockets = append(sockets, a.sockets...)
	}
	return sockets
}
