package bus_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/redistest"
)

// onItsOwn is the time within which subscribers go on after Redis is back.
const onItsOwn = 2 * time.Second

// Redis is restarted cleanly and the network is cut, while messages are
// published.
func TestRedisAwayUnderLoad(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	network := newProxy(t, server.Addr)
	load := startLoad(t, "topic", server.Client(t), network.client(t))
	for _, tt := range []struct {
		name  string
		fault func()
		gaps  int // of Redis
	}{
		{"restart", func() { server.Signal(t, syscall.SIGTERM); server.End(t); server.Restart(t) }, 1},
		{"cut", network.cut, 1},
		{"refused for a while", func() { network.refuse(true); network.cut(); load.streams.more(t, 300); network.refuse(false) }, 1},
		// The old connection stays as long as no new one is answered, and has all that
		// was published meanwhile.
		{"a hole for a while", func() { network.hole(true); load.streams.more(t, 2500); network.hole(false) }, 0},
		{"old connections dead", network.orphan, 1},
	} {
		t.Run(tt.name, func(t *testing.T) { load.run(t, tt.fault, false, tt.gaps) })
	}
}

func TestClusterUnderLoad(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	const topic = "{tag}" // both buses have it in one slot
	load := startLoad(t, topic, cluster.Client(t), cluster.Client(t))
	t.Run("slot moves", func(t *testing.T) {
		to := cluster.Nodes[0]
		if to == cluster.Primary(t, topic) {
			to = cluster.Nodes[1]
		}
		load.run(t, func() { cluster.Move(t, topic, to) }, false, 1)
	})
	t.Run("failover", func(t *testing.T) {
		primary := cluster.Primary(t, topic)
		cluster.AddReplica(t, primary)
		load.run(t, func() { primary.Kill(); cluster.Await(t) }, true, 1)
	})
}

func TestSentinelUnderLoad(t *testing.T) {
	t.Parallel()
	sentinel := redistest.StartSentinel(t)
	load := startLoad(t, "topic", sentinel.Client(t), sentinel.Client(t))
	load.run(t, func() { sentinel.Failover(t) }, true, 1)
}
