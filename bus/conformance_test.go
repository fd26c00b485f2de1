package bus_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/bustest"
	"github.com/limpet-go/limpet/internal/redistest"
)

// patience bounds waits for what must happen; nothing is measured by it.
const patience = 30 * time.Second

func TestMemory(t *testing.T) {
	t.Parallel()
	m := &bus.Memory{Queue: 256}
	bustest.TestBus(t, func() bus.Bus { return m }, bustest.Options{Queue: 256})
	kept := &bus.Memory{Queue: 256, History: 64}
	bustest.TestBus(t, func() bus.Bus { return kept }, bustest.Options{Queue: 256})
	bustest.TestHistory(t, func() bus.History { return kept })
}

func TestOverRedis(t *testing.T) {
	t.Parallel()
	server, cluster, sentinel := redistest.Start(t), redistest.StartCluster(t), redistest.StartSentinel(t)
	for _, where := range []struct {
		name   string
		client redis.UniversalClient
	}{
		{"single", server.Client(t)},
		{"Cluster", cluster.Client(t)},
		{"Sentinel", sentinel.Client(t)},
	} {
		t.Run(where.name, func(t *testing.T) {
			for _, what := range []struct {
				name    string
				history bool
				process func() bus.Bus
			}{
				{"Redis", false, func() bus.Bus { return &bus.Redis{Client: where.client, Queue: 256, Timeout: patience} }},
				{"Redis sharded", false, func() bus.Bus {
					return &bus.Redis{Client: where.client, Queue: 256, Timeout: patience, Sharded: true, Prefix: "p:"}
				}},
				{"Streams", true, func() bus.Bus { return &bus.Streams{Client: where.client, Queue: 256, Timeout: patience} }},
			} {
				t.Run(what.name, func(t *testing.T) {
					bustest.TestBus(t, what.process, bustest.Options{Queue: 256, History: what.history})
					if what.history {
						bustest.TestHistory(t, func() bus.History { return what.process().(bus.History) })
					}
				})
			}
		})
	}
}
