package socketio_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/bus/socketio"
	"github.com/limpet-go/limpet/internal/interop"
	"github.com/limpet-go/limpet/internal/redistest"
)

// Nodes from npm and a member in Go share a Redis Cluster, on which each room of the sharded
// adapter has a channel on some primary.
func TestOnRedisCluster(t *testing.T) {
	t.Parallel()
	for _, tt := range fleets {
		if !strings.HasPrefix(tt.node, "sharded-") {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			redis := redistest.StartCluster(t)
			f := newFleetOf(t, interop.StartOnCluster(t, redis, 2, tt.node))
			client := redis.Client(t)
			member, err := socketio.NewCluster(client, tt.adapter, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- member.Run(ctx) }()
			defer func() {
				stop()
				if err := <-ended; err != nil {
					t.Errorf("Run: %v", err)
				}
			}()
			e, err := socketio.NewEmitter(client, tt.adapter)
			if err != nil {
				t.Fatal(err)
			}
			sockets, err := member.FetchSockets(patient(t))
			if err != nil || len(sockets) != 3 {
				t.Errorf("the nodes have %v, %v, want three sockets", sockets, err)
			}
			by := map[string]func(interop.Emission){
				"node1": func(emission interop.Emission) { f.cluster.Nodes[0].Emit(t, emission) },
				"node2": func(emission interop.Emission) { f.cluster.Nodes[1].Emit(t, emission) },
				"the Emitter": func(emission interop.Emission) {
					if err := ours(patient(t), e, emission); err != nil {
						t.Errorf("%+v: %v", emission, err)
					}
				},
			}
			got := func(events []interop.Event, mark string) string {
				var who []string
				for _, e := range events {
					if e.Event == "got" && e.Args[0] == mark {
						who = append(who, e.Client)
					}
				}
				return strings.Join(slices.Sorted(slices.Values(who)), " ")
			}
			wants := map[string]string{} // by the mark of an emission
			for name, emit := range by {
				for i, c := range []struct {
					emission interop.Emission
					want     string
				}{
					{interop.Emission{NSP: "/"}, "ann bob cid"},
					{interop.Emission{NSP: "/", To: []string{"r1"}}, "ann bob"},
					{interop.Emission{NSP: "/", To: []string{"r2"}}, "bob"},
					{interop.Emission{NSP: "/chat", To: []string{"r1"}}, "dan"},
				} {
					mark := fmt.Sprint(name, " ", i)
					c.emission.Call, c.emission.Args = "emit", []any{"ev", mark, binary(1, 2)}
					emit(c.emission)
					f.Await(t, mark+" to "+c.want, func(events []interop.Event) bool { return len(got(events, mark)) >= len(c.want) })
					wants[mark] = c.want
				}
			}
			// Looked at again at the end, since a client that gets what isn't for it may get
			// it a little later: channels on different primaries have no common order.
			for mark, want := range wants {
				if who := got(f.Events("got"), mark); who != want {
					t.Errorf("%s: %q got it, want %q", mark, who, want)
				}
			}
		})
	}
}
