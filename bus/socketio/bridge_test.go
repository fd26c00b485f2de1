package socketio_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/bus/socketio"
	"github.com/limpet-go/limpet/internal/interop"
)

// A plain WebSocket client shares a room with Socket.IO clients.
func TestBridge(t *testing.T) {
	t.Parallel()
	for _, tt := range fleets {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, tt.version, tt.node)
			node := f.cluster.Nodes[0]
			ok := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			check := func(what string, got, want any) {
				t.Helper()
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%s: got %v, want %v", what, got, want)
				}
			}

			h, err := hub.New(nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := socketio.NewBridge(h, f.cluster.Redis.Client(t), tt.adapter, nil)
			ok(err)
			ctx, stop := context.WithCancel(context.Background())
			var running sync.WaitGroup
			report := func(err error) {
				if err != nil {
					t.Error(err)
				}
			}
			running.Go(func() { report(b.Run(ctx)) })
			defer running.Wait()
			defer stop()

			sent := make(chan struct{}, 1)
			server := httptest.NewServer(h.Handler(&hub.HandlerOptions{
				Member: func(r *http.Request) (hub.MemberOptions, error) {
					return hub.MemberOptions{ID: "gus", Rooms: []string{"r1"}, Data: map[string]any{"name": "Gus"}}, nil
				},
				Message: func(ctx context.Context, _ *hub.Member, said *hub.Frame) {
					if text := string(said.Payload()); text != "here" {
						report(b.To("r1").Emit(ctx, "ev", text))
					}
					sent <- struct{}{}
				},
			}))
			defer server.Close()
			client, _, err := websocket.Dial(patient(t), server.URL, nil)
			ok(err)
			defer client.CloseNow()
			read := func() (message any) {
				t.Helper()
				_, data, err := client.Read(patient(t))
				ok(err)
				ok(json.Unmarshal(data, &message))
				return message
			}
			ok(client.Write(patient(t), websocket.MessageText, []byte("here")))
			<-sent // what is sent to its rooms arrives
			f.awaitIn(t, b.Cluster, "r1", "ann bob gus")

			node.Emit(t, interop.Emission{NSP: "/", To: []string{"r1"}, Call: "emit", Args: []any{
				"news", 1, binary(1, 2), map[string]any{"b": nil, "a": "größer"},
			}})
			check("to a room", read(), []any{
				"news", 1.0, map[string]any{"type": "Buffer", "data": []any{1.0, 2.0}}, map[string]any{"b": nil, "a": "größer"},
			})
			node.Emit(t, interop.Emission{NSP: "/", To: []string{"r9"}, Call: "emit", Args: []any{"elsewhere"}})
			node.Emit(t, interop.Emission{NSP: "/chat", To: []string{"r1"}, Call: "emit", Args: []any{"elsewhere"}})
			node.Emit(t, interop.Emission{NSP: "/", To: []string{"gus"}, Call: "emit", Args: []any{"private"}})
			check("to an ID", read(), []any{"private"})
			node.Emit(t, interop.Emission{NSP: "/", Call: "emit", Args: []any{"all"}})
			check("to all", read(), []any{"all"})

			got := f.got(t, func(emission interop.Emission) {
				if emission.NSP == "/" {
					ok(client.Write(patient(t), websocket.MessageText, []byte("hello")))
					check("its own", read(), []any{"ev", "hello"})
					<-sent // to the others too
				}
				ok(b.Of(emission.NSP).Emit(context.Background(), "end", emission.Args[1:]...))
			})
			check("by Socket.IO clients", got, map[string][]any{"ann": {[]any{"hello"}}, "bob": {[]any{"hello"}}})
			check("the end", read(), []any{"end", 0.0})

			if tt.version == interop.V4 {
				check("its description", node.Emit(t, interop.Emission{NSP: "/", To: []string{"gus"}, Call: "fetchSockets"}), []any{
					map[string]any{"id": "gus", "rooms": []any{"gus", "r1"}, "data": map[string]any{"name": "Gus"}},
				})
				answers := node.Emit(t, interop.Emission{NSP: "/", To: []string{"r1"}, Timeout: 30_000, Call: "emitWithAck", Args: []any{"ev"}})
				check("acknowledgements", sorted(answers), "ann bob")
				check("the event", read(), []any{"ev"})

				node.Emit(t, interop.Emission{NSP: "/", To: []string{"r1"}, Call: "socketsJoin", Args: []any{"r7"}})
				f.awaitIn(t, b.Cluster, "r7", "ann bob gus")
				node.Emit(t, interop.Emission{NSP: "/", Call: "fetchSockets"}) // the Bridge answers once it has joined
				node.Emit(t, interop.Emission{NSP: "/", To: []string{"r7"}, Call: "emit", Args: []any{"joined"}})
				check("to the new room", read(), []any{"joined"})
				node.Emit(t, interop.Emission{NSP: "/", To: []string{"gus"}, Call: "socketsLeave", Args: []any{"r7"}})
				f.awaitIn(t, b.Cluster, "r7", "ann bob")
			}

			e, err := socketio.NewEmitter(f.cluster.Redis.Client(t), tt.adapter)
			ok(err)
			if tt.version == interop.V4 {
				ok(e.To("gus").DisconnectSockets(t.Context(), false))
			} else {
				node.Emit(t, interop.Emission{
					NSP: "/", Adapter: true, Call: "remoteDisconnect", Callback: tt.version == interop.V2, Args: []any{"gus", true},
				})
			}
			_, _, err = client.Read(patient(t))
			check("the close code", websocket.CloseStatus(err), websocket.StatusNormalClosure)
			f.awaitIn(t, b.Cluster, "r1", "ann bob")
		})
	}
}
