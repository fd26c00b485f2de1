package socketio

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Timeout bounds what waits for answers, such as FetchSockets and EmitWithAck:
// 5 s if nothing is said, less if ctx ends before.
//
// Answers that are missing then are told by an *[IncompleteError], beside those that
// came. The methods that ask may be used with a [Cluster] in its own namespace;
// an [Emitter], and a Cluster elsewhere, connects to Redis anew for each call,
// not as a member: nobody waits for its answers.
func (t Target) Timeout(limit time.Duration) Target {
	t.timeout = milliseconds(limit)
	return t
}

// EmitWithAck emits an event and returns what all clients that got it, on all
// nodes, acknowledge it with. Socket.IO 2 and 3 can't do that.
func (t Target) EmitWithAck(ctx context.Context, event string, args ...any) (answers []any, err error) {
	m := t.message(broadcast)
	if m.event, err = eventOf(event, args, reservedEvents); err != nil {
		return nil, err
	}
	return values(t.ask(ctx, m))
}

// ServerSideEmitWithAck sends an event to all other servers in the namespace and
// returns what they acknowledge it with. Socket.IO 2 and 3 can't do that.
func (t Target) ServerSideEmitWithAck(ctx context.Context, event string, args ...any) (answers []any, err error) {
	m := t.message(serverSideEmit)
	if m.event, err = eventOf(event, args, reservedOfNodes); err != nil {
		return nil, err
	}
	return values(t.askNodes(ctx, m))
}

// FetchSockets describes the sockets of all nodes. With [Legacy] only IDs are
// known, and sockets can't be excepted.
func (t Target) FetchSockets(ctx context.Context) ([]Socket, error) {
	answers, err := t.ask(ctx, t.message(fetchSockets))
	return socketsOf(answers), err
}

// AllRooms returns the names of all rooms of all nodes, in no order. With
// [Sharded] and [Streams] that takes fetching all sockets.
func (t Target) AllRooms(ctx context.Context) ([]string, error) {
	answers, err := t.askNodes(ctx, t.message(allRooms))
	all := socketsOf(answers)
	for _, a := range answers {
		all = append(all, Socket{Rooms: a.rooms})
	}
	return roomsIn(all), err
}

// SocketRooms returns the rooms of a socket. They are empty if no node has it; of
// [Legacy], a node that hasn't got it doesn't say so, and the error is an
// *IncompleteError. Socket.IO 3 can't do that. The Target's rooms mean nothing here.
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

// CustomRequest sends data to all other nodes of Socket.IO 2 and returns what
// their customHooks answer. Later ones have [Target.ServerSideEmitWithAck].
func (t Target) CustomRequest(ctx context.Context, data any) (answers []any, err error) {
	m := t.message(customRequest)
	m.value = data
	return values(t.askNodes(ctx, m))
}

// ServerCount returns the number of members that the namespace has.
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

func (t Target) isEverybody() error {
	if len(t.to) > 0 || len(t.except) > 0 {
		return errors.New("socketio: a request to nodes has no rooms")
	}
	return nil
}

func (t Target) askNodes(ctx context.Context, m *message) ([]*message, error) {
	if err := t.isEverybody(); err != nil {
		return nil, err
	}
	return t.ask(ctx, m)
}

func (t Target) ask(ctx context.Context, m *message) ([]*message, error) {
	c, leave, ctx, err := t.join(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return c.ask(ctx, m)
}

// join returns who asks, until leave is called, with a ctx that has the limit.
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
	// What goes wrong is in the answer, so nothing is logged.
	opts := &ClusterOptions{Namespace: t.nsp, Logger: slog.New(slog.DiscardHandler)}
	if c, err = newCluster(link, adapter, opts); err != nil {
		cancel()
		return nil, nil, nil, err
	}
	c.guest = true
	if s := adapter.stream(t.nsp); s != nil && s.heartbeats {
		c.uid = emitterUID // else it would count as a member
	}
	var run sync.WaitGroup
	run.Go(func() { _ = c.Run(ctx) }) // others tells the error
	return c, func() { cancel(); run.Wait() }, ctx, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func values(answers []*message, err error) ([]any, error) {
	var all []any
	for _, a := range answers {
		all = append(all, a.value)
	}
	return all, err
}

func socketsOf(answers []*message) (sockets []Socket) {
	for _, a := range answers {
		sockets = append(sockets, a.sockets...)
	}
	return sockets
}
