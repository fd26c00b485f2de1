package socketio_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/bus/socketio"
	"github.com/limpet-go/limpet/internal/interop"
)

// A fleet is two nodes with five clients in rooms and namespaces.
type fleet struct {
	*interop.Clients
	cluster *interop.Cluster
	names   []string
	sockets map[string]string // IDs by client
	ends    int
}

// fleets are the generations of nodes with the adapter for each.
var fleets = []struct {
	name    string
	version interop.Version
	node    string // the adapter of the nodes, for node.js
	adapter socketio.Adapter
}{
	{"legacy", interop.V2, "", socketio.Legacy{}},
	{"legacy of Socket.IO 3", interop.V3, "", socketio.Legacy{V3: true}},
	{"current", interop.V4, "", socketio.PubSub{}},
	{"sharded, static", interop.V4, "sharded-static", socketio.Sharded{SubscriptionMode: socketio.SubscriptionModeStatic}},
	{"sharded, dynamic", interop.V4, "sharded-dynamic", socketio.Sharded{}},
	{"sharded, dynamic-private", interop.V4, "sharded-dynamic-private", socketio.Sharded{SubscriptionMode: socketio.SubscriptionModeDynamicPrivate}},
	{"streams", interop.V4, "streams", socketio.Streams{}},
	{"streams 0.2", interop.V4, "streams-0.2", socketio.Streams{Heartbeats: true}},
}

func newFleet(t *testing.T, v interop.Version, adapter string) *fleet {
	t.Helper()
	return newFleetOf(t, interop.StartAdapter(t, v, 2, adapter))
}

// newFleetOf connects clients to two nodes.
func newFleetOf(t *testing.T, cluster *interop.Cluster) *fleet {
	t.Helper()
	f := &fleet{cluster: cluster, Clients: interop.StartClients(t, cluster.Version), sockets: make(map[string]string)}
	for i, c := range []struct{ name, nsp, rooms string }{
		{"ann", "/", "r1"},
		{"bob", "/", "r1 r2"},
		{"cid", "/", ""},
		{"dan", "/chat", "r1"},
		{"eve", "/chat", ""},
	} {
		f.Open(t, interop.Client{Name: c.name, URL: f.cluster.Nodes[i%2].URL() + c.nsp, Options: map[string]any{
			"transports": []string{"websocket"}, "reconnection": false,
		}})
		for _, room := range strings.Fields(c.rooms) {
			f.Ask(t, []string{c.name}, "join", room)
		}
		f.names = append(f.names, c.name)
	}
	for _, e := range f.Events("connect") {
		f.sockets[e.Client] = e.Socket
	}
	f.Hear(t, f.names, "ev", "end")
	return f
}

// got returns what each client got of an emission, by client: the events named
// ev until that named end, which is sent to everybody after it.
func (f *fleet) got(t *testing.T, emit func(interop.Emission)) map[string][]any {
	t.Helper()
	for _, nsp := range []string{"/", "/chat"} {
		emit(interop.Emission{NSP: nsp, Call: "emit", Args: []any{"end", f.ends}})
	}
	f.ends++
	last := make(map[string][]any)
	f.Await(t, "the end of everybody", func(events []interop.Event) bool {
		clear(last)
		ends := make(map[string]int)
		for _, e := range events {
			switch {
			case e.Event == "got" && e.Kind == "end":
				ends[e.Client]++
			case e.Event == "got" && ends[e.Client] == f.ends-1:
				last[e.Client] = append(last[e.Client], e.Args)
			}
		}
		for _, name := range f.names {
			if ends[name] < f.ends {
				return false
			}
		}
		return true
	})
	return maps.Clone(last)
}

// ours carries out an emission with an Emitter.
func ours(ctx context.Context, e *socketio.Emitter, emission interop.Emission) error {
	t := e.Of(emission.NSP).To(emission.To...).Except(emission.Except...)
	if emission.Volatile {
		t = t.Volatile()
	}
	if emission.Compress != nil {
		t = t.Compress(*emission.Compress)
	}
	args := emission.Args
	switch emission.Call {
	case "emit":
		return t.Emit(ctx, args[0].(string), native(args[1:]).([]any)...)
	case "socketsJoin":
		return t.SocketsJoin(ctx, args[0].(string))
	case "socketsLeave":
		return t.SocketsLeave(ctx, args[0].(string))
	case "serverSideEmit":
		return t.ServerSideEmit(ctx, args[0].(string), native(args[1:]).([]any)...)
	}
	return errors.New("what is " + emission.Call)
}

// native turns the objects that stand for values that JSON doesn't have into Go
// values.
func native(v any) any {
	switch v := v.(type) {
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = native(v[i])
		}
		return list
	case map[string]any:
		switch {
		case v["$binary"] != nil:
			return v["$binary"]
		case v["$date"] != nil:
			return time.UnixMilli(v["$date"].(int64))
		case v["$undefined"] != nil:
			return nil
		}
		m := make(map[string]any)
		for k := range v {
			m[k] = native(v[k])
		}
		return m
	}
	return v
}

func binary(b ...byte) map[string]any { return map[string]any{"$binary": append([]byte{}, b...)} }

// Clients get the same from the Emitter as from the npm package and from a node.
// With Socket.IO 2 only the node is compared, since socket.io-emitter doesn't mark
// binary data. The cluster adapters have no emitter in npm.
func TestEmitterIsLikeNPMs(t *testing.T) {
	t.Parallel()
	no := false
	undefined := map[string]any{"$undefined": true}
	date := map[string]any{"$date": int64(1700000000123)}
	tests := []struct {
		name     string
		since    interop.Version // which has it
		emission interop.Emission
		want     string // who gets it
	}{
		{"to all", "", interop.Emission{NSP: "/", Args: []any{"ev", "hello"}}, "ann bob cid"},
		{"to a namespace", "", interop.Emission{NSP: "/chat", Args: []any{"ev"}}, "dan eve"},
		{"to a room", "", interop.Emission{NSP: "/", To: []string{"r1"}, Args: []any{"ev", 1}}, "ann bob"},
		{"to a room of a namespace", "", interop.Emission{NSP: "/chat", To: []string{"r1"}, Args: []any{"ev", 1}}, "dan"},
		{"to rooms, once", "", interop.Emission{NSP: "/", To: []string{"r1", "r2"}, Args: []any{"ev", 2}}, "ann bob"},
		{"to nobody", "", interop.Emission{NSP: "/", To: []string{"nowhere"}, Args: []any{"ev"}}, ""},
		{"except a room", interop.V4, interop.Emission{NSP: "/", Except: []string{"r2"}, Args: []any{"ev"}}, "ann cid"},
		{"to a room except others", interop.V4, interop.Emission{NSP: "/", To: []string{"r1"}, Except: []string{"r2", "r3"}, Args: []any{"ev"}}, "ann"},
		{"volatile", "", interop.Emission{NSP: "/", Volatile: true, Args: []any{"ev"}}, "ann bob cid"},
		{"uncompressed", interop.V4, interop.Emission{NSP: "/", Compress: &no, Args: []any{"ev"}}, "ann bob cid"},
		{"values", "", interop.Emission{NSP: "/", Args: []any{
			"ev", nil, true, 0, -1, 1.5, int64(1 << 40), 1e18, -1e-9, "", "größer 😀\u2028\x00", []any{}, []any{[]any{1}},
			map[string]any{"a": map[string]any{"b": []any{"c", nil}}, "": 1}, strings.Repeat("long ", 20_000),
		}}, "ann bob cid"},
		{"undefined", "", interop.Emission{NSP: "/", Args: []any{"ev", undefined, []any{undefined}}}, "ann bob cid"},
		{"a date", "", interop.Emission{NSP: "/", Args: []any{"ev", date, map[string]any{"at": date}}}, "ann bob cid"},
		{"binary", "", interop.Emission{NSP: "/", To: []string{"r1"}, Args: []any{"ev", binary(0, 1, 255), "x"}}, "ann bob"},
		{"nested binary", "", interop.Emission{NSP: "/chat", Args: []any{
			"ev", map[string]any{"files": []any{binary(1), map[string]any{"data": binary(make([]byte, 70_000)...), "at": date}}}, binary(),
		}}, "dan eve"},
	}
	for _, tt := range fleets {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, tt.version, tt.node)
			e, err := socketio.NewEmitter(f.cluster.Redis.Client(t), tt.adapter)
			if err != nil {
				t.Fatal(err)
			}
			our := func(emission interop.Emission) {
				t.Helper()
				if err := ours(t.Context(), e, emission); err != nil {
					t.Errorf("%+v: %v", emission, err)
				}
			}
			node := func(emission interop.Emission) { t.Helper(); f.cluster.Nodes[0].Emit(t, emission) }
			var npm func(interop.Emission)
			if tt.node == "" {
				emitter := interop.StartEmitter(t, f.cluster)
				npm = func(emission interop.Emission) { t.Helper(); emitter.Emit(t, emission) }
			}
			for _, c := range tests {
				if c.since != "" && c.since != tt.version {
					continue
				}
				c.emission.Call = "emit"
				our(c.emission)
				got := f.got(t, our)
				if who := strings.Join(slices.Sorted(maps.Keys(got)), " "); who != c.want {
					t.Errorf("%s: %q got it, want %q", c.name, who, c.want)
				}
				node(c.emission)
				if want := f.got(t, node); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: clients got\n%.1000v, from the node\n%.1000v", c.name, got, want)
				}
				if npm == nil || tt.version == interop.V2 && strings.Contains(c.name, "binary") {
					continue
				}
				npm(c.emission)
				if want := f.got(t, npm); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: clients got\n%.1000v, from npm's emitter\n%.1000v", c.name, got, want)
				}
			}
		})
	}
}

// Sockets join and leave as the Emitter wants: afterwards the right ones get what is
// sent to the room.
func TestEmitterMovesSockets(t *testing.T) {
	t.Parallel()
	for _, tt := range fleets {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, tt.version, tt.node)
			e, err := socketio.NewEmitter(f.cluster.Redis.Client(t), tt.adapter)
			if err != nil {
				t.Fatal(err)
			}
			// Requests and events have different channels, so they may overtake each
			// other, and a node may have to subscribe to the channel of a room first.
			await := func(target socketio.Target, want string) {
				t.Helper()
				for deadline := time.Now().Add(30 * time.Second); ; {
					if err := target.Emit(t.Context(), "ev"); err != nil {
						t.Fatal(err)
					}
					got := f.got(t, func(emission interop.Emission) {
						if err := ours(t.Context(), e, emission); err != nil {
							t.Fatal(err)
						}
					})
					who := strings.Join(slices.Sorted(maps.Keys(got)), " ")
					if who == want {
						return
					}
					if time.Now().After(deadline) {
						t.Fatalf("%q got it, want %q", who, want)
					}
				}
			}
			all := e.To("r1")
			if tt.version != interop.V4 {
				if err := all.SocketsJoin(t.Context(), "r9"); !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("SocketsJoin of a room: %v", err)
				}
				if err := e.Except("r1").Emit(t.Context(), "ev"); !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("Except of a room: %v", err)
				}
				if err := e.ServerSideEmit(t.Context(), "hello"); !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("ServerSideEmit: %v", err)
				}
				all = e.To(f.sockets["ann"], f.sockets["bob"])
			}
			check := func(what string, err error) {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			}
			check("join", all.SocketsJoin(t.Context(), "r8", "r9"))
			await(e.To("r9"), "ann bob")
			check("leave", e.To(f.sockets["bob"]).SocketsLeave(t.Context(), "r9"))
			await(e.To("r9"), "ann")
			await(e.To("r8"), "ann bob")
			await(e.Except(f.sockets["ann"]), "bob cid")
			dan := e.Of("chat").To("r1")
			if tt.version != interop.V4 {
				dan = e.Of("chat").To(f.sockets["dan"])
			}
			check("disconnect", dan.DisconnectSockets(t.Context(), false))
			check("disconnect", e.To(f.sockets["ann"], f.sockets["cid"]).DisconnectSockets(t.Context(), true))
			reasons := make(map[string]string)
			f.Await(t, "three disconnects", func(events []interop.Event) bool {
				clear(reasons)
				for _, e := range events {
					if e.Event == "disconnect" {
						reasons[e.Client] = e.Reason
					}
				}
				return len(reasons) == 3
			})
			if reasons["dan"] != "io server disconnect" {
				t.Errorf("disconnected: %v", reasons)
			}
		})
	}
}

func TestServerSideEmit(t *testing.T) {
	t.Parallel()
	for _, tt := range fleets {
		if tt.version != interop.V4 {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cluster := interop.StartAdapter(t, tt.version, 2, tt.node)
			e, err := socketio.NewEmitter(cluster.Redis.Client(t), tt.adapter)
			if err != nil {
				t.Fatal(err)
			}
			emission := interop.Emission{NSP: "/chat", Call: "serverSideEmit", Args: []any{
				"hello", "größer", 1.5, nil, map[string]any{"a": []any{1, map[string]any{}}}, binary(1, 2),
			}}
			if err := ours(t.Context(), e, emission); err != nil {
				t.Fatal(err)
			}
			cluster.Nodes[0].Emit(t, emission) // which tells the others
			told := func(n *interop.Node, count int) (events []interop.Event) {
				n.Await(t, fmt.Sprint(count, " events"), func(e interop.Event) bool {
					if e.Event == "hello" {
						events = append(events, e)
					}
					return len(events) == count
				})
				return events
			}
			one, two := told(cluster.Nodes[0], 1), told(cluster.Nodes[1], 2)
			for _, events := range [][]interop.Event{one, two} {
				for _, e := range events {
					if e.NSP != "/chat" || !reflect.DeepEqual(e.Args, two[1].Args) {
						t.Errorf("a node heard %v, from a node %v", e, two[1])
					}
				}
			}
			if len(two[1].Args) != 5 {
				t.Errorf("arguments are %v", two[1].Args)
			}
		})
	}
}
