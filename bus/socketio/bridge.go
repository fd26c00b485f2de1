package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/bus/socketio/internal/jsvalue"
)

// BridgeOptions are the options of a [Bridge]. The zero value of each field is a
// good default.
type BridgeOptions struct {
	// ClusterOptions are the options of the Bridge as a member of the cluster.
	// Sockets is ignored.
	ClusterOptions
	// Frame makes the message that members of the hub get for an event. If it
	// returns nil they get none. The default is a text message with a JSON array of
	// the event's name and its arguments: ["name", 1, {"a": true}]. Binary data in
	// it is what JSON.stringify makes of a Buffer: {"type": "Buffer", "data": [1,
	// 2]}.
	Frame func(Event) *hub.Frame
}

// A Bridge makes the members that a [hub.Hub] has in this process sockets of a
// Socket.IO namespace, so that clients with a plain WebSocket share rooms with
// Socket.IO clients. Rooms have the same names on both sides, and a member's ID is
// the ID of its socket.
//
// Members get what a node, or the Bridge as a [Target], sends to their rooms. Nodes
// list them, and make them join, leave and disconnect, like other sockets. They
// aren't asked for acknowledgements. What is sent with the methods of the hub
// reaches no Socket.IO client.
//
// If a hub spans several processes, each of them has a Bridge. A hub whose members are in
// several namespaces has a Bridge for each of them, and one call of [Bridge.Run] for all.
type Bridge struct {
	*Cluster
	hub *hub.Hub
}

// NewBridge returns a Bridge. The caller then calls [Bridge.Run]. The other
// arguments are those of [NewCluster].
func NewBridge(h *hub.Hub, client redis.UniversalClient, adapter Adapter, opts *BridgeOptions) (*Bridge, error) {
	if h == nil {
		return nil, errors.New("socketio: a Bridge needs a Hub")
	}
	var o BridgeOptions
	if opts != nil {
		o = *opts
	}
	if o.Frame == nil {
		o.Frame = textFrame
	}
	o.Sockets = hubSockets{h, o.Frame}
	c, err := NewCluster(client, adapter, &o.ClusterOptions)
	if err != nil {
		return nil, err
	}
	return &Bridge{Cluster: c, hub: h}, nil
}

// Run runs the Bridge, its hub, and other Bridges of the same hub, until ctx ends. The
// caller calls it once, and runs none of them by itself: what [hub.Hub.Run] says of its
// context and of the end of the program holds for this one.
//
// When ctx ends, the hub closes its members first, with 1012 (Service Restart), while the
// Bridges go on: what is sent when members leave still reaches the cluster. Then the
// Bridges leave the cluster, and Run returns nil.
//
// Run returns an error if the hub or a Bridge fails, as [hub.Hub.Run] and [Cluster.Run]
// say. It ends the others in the same order before, since members that miss what is sent
// to their rooms had better connect to another process.
//
// A member that joins a room waits until the Bridge receives what others send to the
// room, or for a second if Redis can't be reached.
func (b *Bridge) Run(ctx context.Context, others ...*Bridge) error {
	for _, other := range others {
		if other == nil || other.hub != b.hub {
			return errors.New("socketio: a Bridge runs together with Bridges of its own hub only")
		}
	}
	connected, failed := context.WithCancelCause(ctx)
	defer failed(nil)
	bridged, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var running sync.WaitGroup
	for _, bridge := range append([]*Bridge{b}, others...) {
		running.Go(func() {
			if err := bridge.run(bridged); err != nil {
				failed(err) // only the first error is kept
			}
		})
	}
	err := b.hub.Run(connected)
	stop()
	running.Wait()
	if err == nil && ctx.Err() == nil {
		err = context.Cause(connected)
	}
	return err
}

// run is [Cluster.Run] with the rooms of the hub.
func (b *Bridge) run(ctx context.Context) error {
	stop := b.hub.OnRooms(func(opened, closed hub.Who) {
		err := errors.Join(
			b.Watch(ctx, slices.Concat(opened.Rooms, opened.IDs)...),
			b.Unwatch(ctx, slices.Concat(closed.Rooms, closed.IDs)...),
		)
		if err != nil && ctx.Err() == nil {
			b.opts.Logger.Warn("members of rooms wait for Redis", "nsp", b.nsp, "err", err)
		}
	})
	defer stop()
	return b.Cluster.Run(ctx)
}

// textFrame is the default of BridgeOptions.Frame.
func textFrame(e Event) *hub.Frame {
	return hub.Text(jsvalue.AppendJSON(nil, asObjects(append([]any{e.Name}, e.Args...))))
}

// asObjects makes a value that was read one that can be written. jsvalue.Normalize
// would refuse NaN, which JSON.stringify writes as null.
func asObjects(v any) any {
	switch v := v.(type) {
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = asObjects(v[i])
		}
		return list
	case map[string]any:
		o := make(object, 0, len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			o = append(o, property{key, asObjects(v[key])})
		}
		return o
	}
	return v
}

// hubSockets are the members of a Hub in this process.
type hubSockets struct {
	hub   *hub.Hub
	frame func(Event) *hub.Frame
}

// who selects members of the hub. A room of Socket.IO is either a room of the hub or
// the ID of a member.
func (h hubSockets) who(s Selection) hub.Who {
	return hub.Who{
		All: len(s.Rooms) == 0, Rooms: s.Rooms, IDs: s.Rooms, ExceptRooms: s.Except, ExceptIDs: s.Except,
	}
}

func (h hubSockets) Find(s Selection) []Socket {
	var sockets []Socket
	for m := range h.hub.Local(h.who(s)) {
		info := m.Info()
		socket := Socket{ID: info.ID, Rooms: info.Rooms}
		_ = json.Unmarshal(info.Data, &socket.Data) // the hub has marshaled it, so it is valid
		sockets = append(sockets, socket)
	}
	return sockets
}

func (h hubSockets) Do(s Selection, a Action) (n int) {
	var do func(*hub.Member)
	switch a := a.(type) {
	case Event:
		frame := sync.OnceValue(func() *hub.Frame { return h.frame(a) }) // not made if nobody gets it
		do = func(m *hub.Member) {
			if f := frame(); f != nil {
				m.Send(f)
			}
		}
	case Join:
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		do = func(m *hub.Member) { _ = m.Join(ctx, a.Rooms...) } // after an error it is in the rooms nevertheless
	case Leave:
		do = func(m *hub.Member) { m.Leave(a.Rooms...) }
	case Disconnect:
		do = func(m *hub.Member) { m.Close(1000, "disconnected by a server") }
	}
	for m := range h.hub.Local(h.who(s)) {
		do(m)
		n++
	}
	if e, ok := a.(Event); ok && e.Ack != nil {
		return 0
	}
	return n
}
