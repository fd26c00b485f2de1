package redistest

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Cluster is a Redis Cluster. While a part of its slots has no node, the others
// are served.
type Cluster struct {
	// Nodes are three primaries, each with a third of the slots in order, and
	// then the replicas that were added.
	Nodes []*Server

	bus string // the port at which the first node listens to the others
}

const (
	primaries = 3
	slots     = 16384
)

// StartCluster starts a Cluster of three primaries and waits until it is in
// order. It ends with the test.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{}
	for i := range primaries {
		n := c.addNode(t)
		n.do(t, "cluster", "addslotsrange", i*slots/primaries, (i+1)*slots/primaries-1)
	}
	c.Await(t)
	return c
}

// addNode starts a node that has met the first one.
func (c *Cluster) addNode(t testing.TB) *Server {
	t.Helper()
	ports := freePorts(t, 2)
	n := start(t, ports[0], "--cluster-enabled", "yes", "--cluster-port", ports[1], "--cluster-announce-ip", "127.0.0.1",
		"--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no",
		"--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no")
	// Nodes that have one and the same epoch would have to settle that first.
	n.do(t, "cluster", "set-config-epoch", len(c.Nodes)+1)
	if len(c.Nodes) == 0 {
		c.bus = ports[1]
	} else {
		host, port, _ := net.SplitHostPort(c.Nodes[0].Addr)
		n.do(t, "cluster", "meet", host, port, c.bus)
	}
	c.Nodes = append(c.Nodes, n)
	return n
}

// AddReplica adds a node that stands by for a primary, and waits until it has
// what that has. About three seconds after the primary was killed it takes over;
// wait for that with Await.
func (c *Cluster) AddReplica(t testing.TB, primary *Server) *Server {
	t.Helper()
	n := c.addNode(t)
	c.Await(t) // it can't follow whom it doesn't know
	n.do(t, "cluster", "replicate", primary.id(t))
	await(t, "the replica to have its primary's data", func() bool {
		return n.says(t, "info replication", "role:slave", "master_link_status:up")
	})
	c.Await(t)
	return n
}

// Await waits until all nodes that are running know all nodes, and find all
// slots served by nodes that are running.
func (c *Cluster) Await(t testing.TB) {
	t.Helper()
	known := fmt.Sprint("cluster_known_nodes:", len(c.Nodes))
	down := slices.DeleteFunc(slices.Clone(c.Nodes), (*Server).running)
	for _, n := range c.Nodes {
		await(t, "the cluster to be in order at "+n.Addr, func() bool {
			return slices.Contains(down, n) || n.says(t, "cluster info", "cluster_state:ok", "cluster_slots_ok:16384", known) &&
				!slices.ContainsFunc(n.view(t), func(m member) bool {
					return m.slots != "" && slices.ContainsFunc(down, func(d *Server) bool { return d.Addr == m.addr })
				})
		})
	}
}

// Client returns a client that heeds the deadlines of contexts and learns of a
// refused connection at once. Everything else is go-redis' default: it learns of
// a slot that was moved when it meets that, and of a failover within a minute,
// unless somebody calls ReloadState. It is closed with the test.
func (c *Cluster) Client(t testing.TB) *redis.ClusterClient {
	t.Helper()
	o := &redis.ClusterOptions{ContextTimeoutEnabled: true, DialerRetries: 1}
	for _, n := range c.Nodes {
		o.Addrs = append(o.Addrs, n.Addr)
	}
	client := redis.NewClusterClient(o)
	t.Cleanup(func() { client.Close() })
	return client
}

// Primary returns the node that a key, or a channel of sharded pub/sub, belongs
// to in the view of the first node that is running.
func (c *Cluster) Primary(t testing.TB, key string) *Server {
	t.Helper()
	i := slices.IndexFunc(c.Nodes, (*Server).running)
	if i < 0 {
		t.Fatal("no node of the cluster is running")
	}
	slot, err := c.Nodes[i].do(t, "cluster", "keyslot", key).Int()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Nodes[i].view(t) {
		if m.has(slot) {
			return c.Nodes[slices.IndexFunc(c.Nodes, func(n *Server) bool { return n.Addr == m.addr })]
		}
	}
	t.Fatalf("no node has slot %d of %q", slot, key)
	return nil
}

// A member is a node as another one sees it.
type member struct {
	id, addr, epoch string
	slots           string // as "0-99 200"
}

// has tells whether the node has a slot.
func (m member) has(slot int) bool {
	for r := range strings.FieldsSeq(m.slots) {
		first, last, ok := strings.Cut(r, "-")
		if !ok {
			last = first
		}
		low, err := strconv.Atoi(first)
		high, err2 := strconv.Atoi(last)
		if err == nil && err2 == nil && low <= slot && slot <= high {
			return true
		}
	}
	return false
}

// view returns all nodes as this one sees them, by their IDs.
func (s *Server) view(t testing.TB) (all []member) {
	t.Helper()
	text, err := s.do(t, "cluster", "nodes").Text()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		// ID, address@bus port, flags, primary, ping, pong, epoch, link, slots
		f := strings.Fields(line)
		addr, _, _ := strings.Cut(f[1], "@")
		all = append(all, member{f[0], addr, f[6], strings.Join(f[8:], " ")})
	}
	slices.SortFunc(all, func(a, b member) int { return strings.Compare(a.id, b.id) })
	return all
}

// Move moves the slot that a key, or a channel of sharded pub/sub, is in to
// another primary, with all keys in it, and waits until all nodes know.
func (c *Cluster) Move(t testing.TB, key string, to *Server) {
	t.Helper()
	from := c.Primary(t, key)
	if from == to {
		return
	}
	slot := to.do(t, "cluster", "keyslot", key).Val()
	to.do(t, "cluster", "setslot", slot, "importing", from.id(t))
	from.do(t, "cluster", "setslot", slot, "migrating", to.id(t))
	host, port, _ := net.SplitHostPort(to.Addr)
	for {
		keys, err := from.do(t, "cluster", "getkeysinslot", slot, 100).StringSlice()
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) == 0 {
			break
		}
		command := []any{"migrate", host, port, "", 0, 10_000, "keys"}
		for _, key := range keys {
			command = append(command, key)
		}
		from.do(t, command...)
	}
	// First the new owner, or for a moment nobody has it. The others would
	// hear of it from the two, but later.
	others := slices.DeleteFunc(slices.Clone(c.Nodes), func(n *Server) bool {
		return n == to || n == from || !n.running() || n.says(t, "info replication", "role:slave")
	})
	for _, n := range append([]*Server{to, from}, others...) {
		n.do(t, "cluster", "setslot", slot, "node", to.id(t))
	}
	// Until all have heard that the new owner's word is the latest, another
	// move could make two nodes point at each other.
	await(t, "all nodes to agree on who has what", func() bool {
		view := to.view(t)
		return !slices.ContainsFunc(c.Nodes, func(n *Server) bool { return n.running() && !slices.Equal(n.view(t), view) })
	})
}

// id returns the ID of a node in its cluster.
func (s *Server) id(t testing.TB) string {
	t.Helper()
	return s.do(t, "cluster", "myid").Val().(string)
}
