// Package interop runs the real thing for tests: Socket.IO nodes and clients of
// the versions 2, 3 and 4 from npm, joined over a real Redis, with
// examples/gateway in front of them.
package interop

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
	"github.com/limpet-go/limpet/internal/redistest"
)

// Version is a generation of Socket.IO: the name of its folder in testdata.
type Version string

// The three generations, each with its own protocol and Redis adapter.
const (
	V2 Version = "v2" // Engine.IO 3; socket.io-redis 5
	V3 Version = "v3" // Engine.IO 4; socket.io-redis 6.0, the last one that fits 3.x
	V4 Version = "v4" // Engine.IO 4; @socket.io/redis-adapter 8
)

// Event is what a node or a client driver printed. Which fields are set depends
// on its name.
type Event struct {
	Event  string // of a node: listening, connect, disconnect; of a driver: connect, disconnect, message, refused, done
	Port   int    // listening
	Client string // connect, disconnect, message and refused: the client's name
	Node   string // connect of a driver: the node's name
	Socket string // connect and disconnect: the socket's ID
	Reason string // disconnect
	Code   int    // disconnect of a driver: the code of the close frame, where the client tells it
	At     int64  // connect and disconnect of a driver: milliseconds since 1970
	Kind   string // message: message (to a room), privateMessage or broadcast
	Text   string // message

	// refused: an answer that was neither 200 nor 101
	Status int
	Method string
	URL    string

	// done: the end of a command
	ID      int
	Error   string
	Answers map[string]any
}

// Node is one Socket.IO server.
type Node struct {
	*process.Process
	Name string
	Port int

	t         testing.TB // of the cluster
	version   Version
	redisPort string
}

// URL is where the node serves.
func (n *Node) URL() string { return fmt.Sprintf("http://127.0.0.1:%d", n.Port) }

// Cluster is a set of nodes of one version that share a Redis.
type Cluster struct {
	Version Version
	Nodes   []*Node
}

// Start starts a Redis and as many nodes, named node1 and so on. They end with
// the test.
func Start(t testing.TB, v Version, nodes int) *Cluster {
	t.Helper()
	need.Modules(t, testdata(string(v)))
	_, redisPort, _ := net.SplitHostPort(redistest.Start(t).Addr)
	c := &Cluster{Version: v}
	for i := range nodes {
		c.Nodes = append(c.Nodes, startNode(t, v, fmt.Sprintf("node%d", i+1), 0, redisPort))
	}
	for _, n := range c.Nodes {
		n.listening(t)
	}
	return c
}

// Node returns the node of this name.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func startNode(t testing.TB, v Version, name string, port int, redisPort string) *Node {
	t.Helper()
	cmd := exec.Command(need.Node(t), testdata("node.js"), string(v), name, strconv.Itoa(port), redisPort)
	return &Node{Process: process.Start(t, cmd), Name: name, Port: port, t: t, version: v, redisPort: redisPort}
}

// listening waits until the node listens and has subscribed.
func (n *Node) listening(t testing.TB) {
	t.Helper()
	n.Port = n.Await(t, "listening", func(e Event) bool { return e.Event == "listening" }).Port
}

// Restart starts a killed node again, on the same port. It ends with the test
// that started the cluster, too.
func (n *Node) Restart(t testing.TB) {
	t.Helper()
	*n = *startNode(n.t, n.version, n.Name, n.Port, n.redisPort)
	n.listening(t)
}

// Await waits for an event of the node, one that it has printed already included,
// and returns it.
func (n *Node) Await(t testing.TB, what string, match func(Event) bool) Event {
	t.Helper()
	return awaitOne(t, n.Process, n.Name+"'s "+what, match)
}

func awaitOne(t testing.TB, p *process.Process, what string, match func(Event) bool) (found Event) {
	t.Helper()
	process.Await(t, p, what, func(events []Event) bool {
		i := slices.IndexFunc(events, match)
		if i >= 0 {
			found = events[i]
		}
		return i >= 0
	})
	return found
}

// testdata returns the path of a file in this package's testdata, wherever the
// test that asks runs.
func testdata(name string) string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "testdata", name)
}
