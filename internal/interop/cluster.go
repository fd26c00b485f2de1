// Package interop runs the real thing for tests: Socket.IO nodes and clients of
// the versions 2, 3 and 4 from npm, joined over a real Redis, with
// examples/gateway in front of them.
package interop

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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
	Event     string // of a node: listening, connect, disconnect, hello; of a driver: connect, disconnect, message, got, refused, done
	Port      int    // listening
	Client    string // connect, disconnect, message and refused: the client's name
	Node      string // connect of a driver: the node's name
	Socket    string // connect and disconnect: the socket's ID
	Reason    string // disconnect
	Code      int    // disconnect of a driver: the code of the close frame, where the client tells it
	Recovered bool   // connect of a driver: the node has given the client the state of its last connection
	At        int64  // connect and disconnect of a driver: milliseconds since 1970
	Kind      string // message: message (to a room), privateMessage or broadcast; got: the event's name
	Text      string // message
	NSP       string // hello: the namespace
	Args      []any  // got and hello: the event's arguments, with binary data as {"$binary": base64}

	// refused: an answer that was neither 200 nor 101
	Status int
	Method string
	URL    string

	// done: the end of a command of a driver, a node or an emitter
	ID      int
	Error   string
	Answers map[string]any
	Result  any
}

// Node is one Socket.IO server.
type Node struct {
	*process.Process
	Name string
	Port int

	t        testing.TB // of the cluster
	args     []string   // of node.js, with any port
	commands int
}

// URL is where the node serves.
func (n *Node) URL() string { return fmt.Sprintf("http://127.0.0.1:%d", n.Port) }

// Cluster is a set of nodes of one version that share a Redis.
type Cluster struct {
	Version Version
	Nodes   []*Node
	Redis   *redistest.Server
}

// Start starts a Redis and as many nodes, named node1 and so on. They end with
// the test. They are joined by their version's default adapter.
func Start(t testing.TB, v Version, nodes int) *Cluster {
	t.Helper()
	return StartAdapter(t, v, nodes, "")
}

// StartAdapter starts nodes with another adapter: one that node.js knows.
func StartAdapter(t testing.TB, v Version, nodes int, adapter string) *Cluster {
	t.Helper()
	need.Modules(t, testdata(string(v)))
	c := &Cluster{Version: v, Redis: redistest.Start(t)}
	for i := range nodes {
		args := []string{string(v), fmt.Sprintf("node%d", i+1), "0", c.redisPort()}
		if adapter != "" {
			args = append(args, adapter)
		}
		c.Nodes = append(c.Nodes, startNode(t, args))
	}
	for _, n := range c.Nodes {
		n.listening(t)
	}
	return c
}

func (c *Cluster) redisPort() string {
	_, port, _ := net.SplitHostPort(c.Redis.Addr)
	return port
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

func startNode(t testing.TB, args []string) *Node {
	t.Helper()
	cmd := exec.Command(need.Node(t), append([]string{testdata("node.js")}, args...)...)
	return &Node{Process: process.Start(t, cmd), Name: args[1], t: t, args: args}
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
	args := slices.Clone(n.args)
	args[2] = strconv.Itoa(n.Port)
	*n = *startNode(n.t, args)
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

// testdata returns the path of a file in this package's testdata. A test runs in the
// folder of its package, somewhere below the root.
func testdata(name string) string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	for {
		ours := filepath.Join(dir, "internal", "interop", "testdata")
		parent := filepath.Dir(dir)
		if _, err := os.Stat(ours); err == nil || parent == dir {
			return filepath.Join(ours, name)
		}
		dir = parent
	}
}
