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

// BridgeOptions are a Bridge's. The zero value of each field is a good default.
type BridgeOptions struct {
	// ClusterOptions are those of the member that the Bridge is, other than
	// Sockets.
	ClusterOptions
	// Frame makes the message that members of the Hub get of an event; nil is no
	// message. By default it is text, a JSON array of the event's name and its
	// arguments: ["name", 1, {"a": true}]. Binary data is what JSON.stringify makes
	// of a Buffer, {"type": "Buffer", "data": [1, 2]}.
	Frame func(Event) *hub.Frame
}

// A Bridge makes the members that a hub.Hub has in this process sockets of a
// namespace of Socket.IO, so that clients with a plain WebSocket share rooms with
// Socket.IO clients. The rooms of both have the same names, and the ID of a
// member is that of its socket.
//
// What is sent to a room, by a node or with the Bridge as a [Target], reaches
// members in it; they are listed, and join, leave and are disconnected like other
// sockets. They aren't asked for acknowledgements. What only the Hub sends
// reaches no Socket.IO client.
//
// Every process of a Hub over several machines has a Bridge of its own.
type Bridge struct {
	*Cluster
	hub *hub.Hub
}

// NewBridge returns a Bridge whose caller runs [Bridge.Run]; the other arguments
// are those of [NewCluster].
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

// Run is [Cluster.Run], beside which Hub.Run has to run: a member that joins a
// room waits until what others send there will arrive, a second if Redis is away.
func (b *Bridge) Run(ctx context.Context) error {
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

// asObjects makes what was read what can be written. normalize would refuse what
// JSON.stringify makes null.
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

// who selects members: a room of Socket.IO may be one of the Hub's or an ID.
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
		_ = json.Unmarshal(info.Data, &socket.Data) // the Hub has marshalled it
		sockets = append(sockets, socket)
	}
	return sockets
}

func (h hubSockets) Do(s Selection, a Action) (n int) {
	var do func(*hub.Member)
	switch a := a.(type) {
	case Event:
		frame := sync.OnceValue(func() *hub.Frame { return h.frame(a) }) // not for nobody
		do = func(m *hub.Member) {
			if f := frame(); f != nil {
				m.Send(f)
			}
		}
	case Join:
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		do = func(m *hub.Member) { _ = m.Join(ctx, a.Rooms...) } // it is in the rooms at last
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
