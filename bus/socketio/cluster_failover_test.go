package socketio_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/limpet-go/limpet/bus/socketio"
	"github.com/limpet-go/limpet/internal/redistest"
)

// A node of a Redis Cluster dies: when its replica has taken over, senders and
// receivers find it by themselves.
func TestRedisClusterFailover(t *testing.T) {
	t.Parallel()
	server := redistest.StartCluster(t)
	const key = "socket.io" // the stream
	primary := server.Primary(t, key)
	server.AddReplica(t, primary)
	adapters := map[string]socketio.Adapter{
		"streams": socketio.Streams{}, "sharded": socketio.Sharded{Prefix: "{" + key + "}"},
	}
	type pair struct {
		member  *clients
		emitter *socketio.Emitter
	}
	pairs := make(map[string]pair)
	for name, adapter := range adapters {
		m := newClients()
		var err error
		if m.cluster, err = socketio.NewCluster(server.Client(t), adapter, &socketio.ClusterOptions{Sockets: m}); err != nil {
			t.Fatal(err)
		}
		m.connect(t, "go", "room")
		run(t, m.cluster)
		e, err := socketio.NewEmitter(server.Client(t), adapter)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Emit(patient(t), "before"); err != nil {
			t.Fatal(err)
		}
		pairs[name] = pair{m, e}
	}
	primary.Kill()
	server.Await(t)
	for name, p := range pairs {
		begin := time.Now()
		for i := 0; !p.member.has("go", isEvent("after")); i++ {
			err := p.emitter.Emit(patient(t), "after", i)
			if time.Since(begin) > 30*time.Second { // half as long as go-redis takes by itself
				t.Fatalf("%s: no event arrives after a failover, %v", name, err)
			}
		}
		if sockets, err := p.member.cluster.FetchSockets(patient(t)); len(sockets) != 1 || err != nil {
			t.Errorf("%s: sockets are %v, %v", name, fmt.Sprint(sockets), err)
		}
	}
}
