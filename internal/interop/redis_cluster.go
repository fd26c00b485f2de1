package interop

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/redistest"
)

// StartOnCluster starts nodes of Socket.IO 4 with a sharded adapter that are joined over a
// Redis Cluster. The Redis of what it returns is nil.
func StartOnCluster(t testing.TB, redis *redistest.Cluster, nodes int, adapter string) *Cluster {
	t.Helper()
	need.Modules(t, testdata(string(V4)))
	var ports []string
	for _, n := range redis.Nodes {
		_, port, err := net.SplitHostPort(n.Addr)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
	}
	c := &Cluster{Version: V4}
	for i := range nodes {
		c.Nodes = append(c.Nodes, startNode(t, []string{string(V4), fmt.Sprintf("node%d", i+1), "0", strings.Join(ports, ","), adapter}))
	}
	for _, n := range c.Nodes {
		n.listening(t)
	}
	return c
}
