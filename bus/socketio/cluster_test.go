package socketio_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/bus/socketio"
	"github.com/limpet-go/limpet/internal/interop"
)

// sorted returns the elements of a list as text, sockets by their IDs, in order.
func sorted(list any) string {
	var all []string
	v := reflect.ValueOf(list)
	for i := range v.Len() {
		switch e := v.Index(i).Interface().(type) {
		case socketio.Socket:
			all = append(all, e.ID)
		case map[string]any:
			all = append(all, fmt.Sprint(e["id"]))
		default:
			all = append(all, fmt.Sprint(e))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// named is sorted with the names of clients in place of their IDs.
func (f *fleet) named(list any) string {
	words := strings.Fields(sorted(list))
	for i, word := range words {
		for name, id := range f.sockets {
			// Clients of Socket.IO 2 are in the namespace / as well.
			if word == id || "/chat#"+word == id {
				words[i] = name
			}
		}
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// A Go process is a node among nodes: each side sends requests, answers them, and
// gets what the other sends.
func TestCluster(t *testing.T) {
	t.Parallel()
	for _, tt := range fleets {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, tt.version, tt.node)
			node := f.cluster.Nodes[0]
			heard := make(chan socketio.Event, 10)
			m, leave := member(t, f.cluster.Redis.Client(t), tt.adapter, socketio.ClusterOptions{
				ServerSideEmit: func(e socketio.Event) {
					if e.Ack != nil {
						e.Ack("go")
					}
					heard <- e
				},
				CustomRequest: func(data any) any { return map[string]any{"name": "go", "data": data} },
			})
			c := m.cluster
			everybody := "ann bob cid"
			if tt.version == interop.V2 { // where a client of any namespace is in / too
				everybody += " dan eve"
			}
			check := func(what string, got, want any) {
				t.Helper()
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%s: got %v, want %v", what, got, want)
				}
			}
			ok := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}

			t.Run("sockets", func(t *testing.T) {
				sockets := func(rooms ...string) any {
					e := interop.Emission{NSP: "/", To: rooms, Call: "fetchSockets"}
					switch tt.version {
					case interop.V2:
						e = interop.Emission{NSP: "/", Adapter: true, Call: "clients", Callback: true, Args: []any{rooms}}
					case interop.V3:
						e = interop.Emission{NSP: "/", Adapter: true, Call: "sockets", Args: []any{map[string]any{"$set": rooms}}}
					}
					return node.Emit(t, e)
				}
				check("all, asked by a node", f.named(sockets([]string{}...)), everybody+" go1 go2")
				check("of a room, asked by a node", f.named(sockets("r1")), "ann bob go1")
				check("of rooms, asked by a node", f.named(sockets("r2", "r9")), "bob go2")
				all, err := c.FetchSockets(patient(t))
				ok(err)
				check("all", f.named(all), everybody+" go1 go2")
				some, err := c.To("r1").FetchSockets(patient(t))
				ok(err)
				check("of a room", f.named(some), "ann bob go1")
				elsewhere, err := c.Of("/chat").FetchSockets(patient(t)) // as a guest
				ok(err)
				check("of a namespace", f.named(elsewhere), "dan eve")
				if tt.version == interop.V4 {
					rest, err := c.Except("r1").FetchSockets(patient(t))
					ok(err)
					check("except a room", f.named(rest), "cid go2")
					one, err := c.To(f.sockets["bob"]).FetchSockets(patient(t))
					ok(err)
					check("rooms of one", f.named(one[0].Rooms), "bob r1 r2")
					if one[0].Handshake["query"] == nil {
						t.Errorf("the handshake is %v", one[0].Handshake)
					}
					mine := node.Emit(t, interop.Emission{NSP: "/", To: []string{"go2"}, Call: "fetchSockets"}).([]any)
					check("one of Go's", mine, []any{map[string]any{
						"id": "go2", "rooms": []any{"go2", "r9"}, "data": map[string]any{"of": "Go"},
					}})
				}
			})

			t.Run("rooms", func(t *testing.T) {
				rooms, err := c.AllRooms(patient(t))
				ok(err)
				check("all", f.named(rooms), everybody+" go1 go2 r1 r2 r9")
				if tt.version != interop.V3 {
					rooms, err := c.SocketRooms(patient(t), f.sockets["bob"])
					ok(err)
					check("of one", f.named(rooms), "bob r1 r2")
				}
				switch {
				case tt.version == interop.V2:
					got := node.Emit(t, interop.Emission{NSP: "/", Adapter: true, Call: "clientRooms", Callback: true, Args: []any{"go2"}})
					check("of one, asked by a node", sorted(got), "go2 r9")
					fallthrough
				case tt.node == "":
					e := interop.Emission{NSP: "/", Adapter: true, Call: "allRooms", Callback: tt.version == interop.V2}
					check("all, asked by a node", f.named(node.Emit(t, e)), everybody+" go1 go2 r1 r2 r9")
				}
			})

			t.Run("count", func(t *testing.T) {
				n, err := c.ServerCount(patient(t))
				ok(err)
				check("asked by Go", n, 3)
				if tt.version == interop.V4 {
					n := node.Emit(t, interop.Emission{NSP: "/", Adapter: true, Call: "serverCount"})
					check("asked by a node", n, 3.0)
				}
			})

			t.Run("join, leave", func(t *testing.T) {
				move := func(call, remote, socket, room string) {
					e := interop.Emission{NSP: "/", To: []string{socket}, Call: call, Args: []any{room}}
					if tt.version != interop.V4 { // which waits for the answer
						e = interop.Emission{
							NSP: "/", Adapter: true, Call: remote, Callback: tt.version == interop.V2, Args: []any{socket, room},
						}
					}
					node.Emit(t, e)
				}
				move("socketsJoin", "remoteJoin", "go1", "r5")
				check("joins", m.await(t, "go1", func(a socketio.Action) bool { _, is := a.(socketio.Join); return is }),
					socketio.Join{Rooms: []string{"r5"}})
				move("socketsLeave", "remoteLeave", "go1", "r5")
				check("leaves", m.await(t, "go1", func(a socketio.Action) bool { _, is := a.(socketio.Leave); return is }),
					socketio.Leave{Rooms: []string{"r5"}})

				ok(c.To(f.sockets["cid"], "go2").SocketsJoin(t.Context(), "r7"))
				f.awaitIn(t, c, "r7", "cid go2")
				ok(c.To(f.sockets["cid"], "go2").SocketsLeave(t.Context(), "r7"))
				f.awaitIn(t, c, "r7", "")
			})

			t.Run("events", func(t *testing.T) {
				node.Emit(t, interop.Emission{NSP: "/", To: []string{"r1"}, Call: "emit", Args: []any{
					"ev", 1.5, nil, binary(1, 2), map[string]any{"a": []any{"größer"}},
				}})
				e := m.await(t, "go1", isEvent("ev")).(socketio.Event)
				check("arguments", e.Args, []any{1.5, nil, []byte{1, 2}, map[string]any{"a": []any{"größer"}}})
				node.Emit(t, interop.Emission{NSP: "/", To: []string{"go2"}, Call: "emit", Args: []any{"private"}})
				m.await(t, "go2", isEvent("private"))
				node.Emit(t, interop.Emission{NSP: "/", Call: "emit", Args: []any{"all"}})
				m.await(t, "go1", isEvent("all"))

				got := f.got(t, func(emission interop.Emission) {
					t := c.Of(emission.NSP)
					if emission.NSP == "/" && emission.Args[0] == "end" {
						ok(t.To("r1").Emit(context.Background(), "ev", struct {
							At []byte `json:"at"`
						}{[]byte{7}}))
					}
					ok(t.Emit(context.Background(), emission.Args[0].(string), emission.Args[1:]...))
				})
				who := make([]string, 0)
				for name := range got {
					who = append(who, name)
				}
				check("to a room", sorted(who), "ann bob")
				e = m.await(t, "go1", isEvent("ev")).(socketio.Event)
				check("arguments of its own", e.Args, []any{map[string]any{"at": []byte{7}}})
			})

			if tt.version == interop.V2 {
				t.Run("custom requests", func(t *testing.T) {
					answers := node.Emit(t, interop.Emission{
						NSP: "/", Adapter: true, Call: "customRequest", Callback: true, Args: []any{"x"},
					}).([]any)
					if len(answers) != 3 || !slices.ContainsFunc(answers, func(a any) bool {
						return reflect.DeepEqual(a, map[string]any{"name": "go", "data": "x"})
					}) {
						t.Errorf("a node got %v", answers)
					}
					mine, err := c.CustomRequest(patient(t), "y")
					ok(err)
					check("answers", len(mine), 2)
				})
			}

			if tt.version == interop.V4 {
				t.Run("serverSideEmit", func(t *testing.T) {
					node.Emit(t, interop.Emission{NSP: "/", Call: "serverSideEmit", Args: []any{"hello", 1}})
					check("the event", (<-heard).Args, []any{1.0})
					answers := node.Emit(t, interop.Emission{NSP: "/", Call: "serverSideEmitWithAck", Args: []any{"hello", 2}})
					check("the node's answers", sorted(answers), "go node2")
					check("the event", (<-heard).Name, "hello")
					mine, err := c.ServerSideEmitWithAck(patient(t), "hello", 3)
					ok(err)
					check("answers", sorted(mine), "node1 node2")
				})
				t.Run("acknowledgements", func(t *testing.T) {
					answers := node.Emit(t, interop.Emission{NSP: "/", Timeout: 30_000, Call: "emitWithAck", Args: []any{"ev", 1}})
					check("of a node's event", sorted(answers), "ann bob cid go1 go2")
					mine, err := c.To("r1", "r9").EmitWithAck(patient(t), "ev", 2)
					ok(err)
					check("of Go's event", sorted(mine), "ann bob go1 go2")
					none, err := c.Timeout(30*time.Second).To("r1").Except("r1").EmitWithAck(patient(t), "ev")
					ok(err)
					check("of nobody's event", len(none), 0)

					e, err := socketio.NewEmitter(f.cluster.Redis.Client(t), tt.adapter)
					ok(err)
					theirs, err := e.To("r1").EmitWithAck(patient(t), "ev", 3)
					ok(err)
					check("of an Emitter's event", sorted(theirs), "ann bob go1")
				})
			}

			t.Run("a node hangs", func(t *testing.T) {
				hung := f.cluster.Nodes[1]
				wake := hang(t, hung)
				some, err := c.Timeout(time.Second).FetchSockets(patient(t))
				var missing *socketio.IncompleteError
				if !errors.As(err, &missing) || missing.Nodes != 1 || missing.Expected != 2 || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("error is %v", err)
				}
				want := "ann cid go1 go2"
				if tt.version == interop.V2 {
					want = "ann cid eve go1 go2"
				}
				check("the others", f.named(some), want)
				wake()
			})

			t.Run("disconnect", func(t *testing.T) {
				e := interop.Emission{NSP: "/", To: []string{"go2"}, Call: "disconnectSockets", Args: []any{true}}
				if tt.version != interop.V4 {
					e = interop.Emission{
						NSP: "/", Adapter: true, Call: "remoteDisconnect", Callback: tt.version == interop.V2, Args: []any{"go2", true},
					}
				}
				node.Emit(t, e)
				m.await(t, "go2", func(a socketio.Action) bool { return a == socketio.Disconnect{Close: true} })
			})

			t.Run("leaves", func(t *testing.T) {
				leave()
				e, err := socketio.NewEmitter(f.cluster.Redis.Client(t), tt.adapter)
				ok(err)
				n := 0
				for deadline := time.Now().Add(30 * time.Second); n != 2 && time.Now().Before(deadline); { // Redis may notice later
					n, err = e.ServerCount(patient(t))
					ok(err)
				}
				check("those who are left", n, 2)
				if _, err := c.FetchSockets(patient(t)); err == nil {
					t.Error("a Cluster that has left fetches sockets")
				}
			})
		})
	}
}

// awaitIn waits until the sockets in a room are those that are wanted.
func (f *fleet) awaitIn(t *testing.T, c *socketio.Cluster, room, want string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		sockets, err := c.To(room).FetchSockets(patient(t))
		if err != nil {
			t.Fatal(err)
		}
		got := f.named(sockets)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q are in %s, want %q", got, room, want)
		}
	}
}
