//go:build unix

package interop_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/interop"
)

// A node is killed under load: every client is back within a second and its own
// delay, on a node that takes it.
func TestNodeKilled(t *testing.T) {
	for _, v := range versions { // one after the other: it measures
		t.Run(string(v), func(t *testing.T) {
			cluster := interop.Start(t, v, 3)
			s := connect(t, cluster, 30, nil)
			s.Load(t, 100)
			before := homes(s.Events("connect"))
			killed := time.Now()
			cluster.Nodes[0].Kill()
			s.moved(t, before, "node1")
			for _, e := range s.Events("connect")[len(s.names):] {
				if late := time.UnixMilli(e.At).Sub(killed); late > time.Second+retryDelay {
					t.Errorf("%s was back %v after the kill", e.Client, late)
				}
			}
		})
	}
}

// What else can happen to a node, its clients and the gateway. It must be noticed
// by other means than heartbeats: those of the nodes are slower than the tests'
// patience.
func TestFailover(t *testing.T) {
	each(t, func(t *testing.T, v interop.Version) {
		cluster := interop.Start(t, v, 3)
		t.Run("node hangs and comes back", func(t *testing.T) { testHung(t, cluster) })
		t.Run("node asks to be left", func(t *testing.T) { testLeft(t, cluster) })
		t.Run("client leaves", func(t *testing.T) { testLeaves(t, cluster) })
		t.Run("gateway drains", func(t *testing.T) { testDrains(t, cluster) })
	})
}

// A hung node is found by its health page.
func testHung(t *testing.T, cluster *interop.Cluster) {
	s := connect(t, cluster, 30, nil)
	s.Load(t, 100)
	before := homes(s.Events("connect"))
	cluster.Nodes[0].Signal(t, syscall.SIGSTOP)
	s.moved(t, before, "node1")

	// Once it answers again it gets new clients, and nobody is moved for that.
	after := homes(s.Events("connect"))
	cluster.Nodes[0].Signal(t, syscall.SIGCONT)
	s.gateway.AwaitLine(t, "backend=node1 .*to=up")
	if s.newcomers(t, "node1") == 0 {
		t.Error("a node that came back gets no new clients")
	}
	s.unmoved(t, after)
}

// A node whose health page says no keeps its clients and gets no others. That is
// how to restart nodes one after the other without a failed request.
func testLeft(t *testing.T, cluster *interop.Cluster) {
	s := connect(t, cluster, 30, nil)
	s.Load(t, 100)
	before := homes(s.Events("connect"))
	cluster.Nodes[0].Signal(t, syscall.SIGUSR2)
	s.gateway.AwaitLine(t, "backend=node1 .*to=draining")
	if n := s.newcomers(t, "node1"); n > 0 {
		t.Errorf("a node that asks to be left got %d of 12 new clients", n)
	}
	s.unmoved(t, before)

	cluster.Nodes[0].Kill()
	s.moved(t, before, "node1")
	cluster.Nodes[0].Restart(t)
	s.gateway.AwaitLine(t, "backend=node1 .*to=up")
	if s.newcomers(t, "node1") == 0 {
		t.Error("a node that was restarted gets no new clients")
	}
}

// A client that is gone without a word is noticed by its node, also when it was
// polling.
func testLeaves(t *testing.T, cluster *interop.Cluster) {
	s := connect(t, cluster, 9, func(i int, c *interop.Client) { c.Name = "leaver-" + c.Name })
	home := homes(s.Events("connect"))
	if len(home) != 9 {
		t.Fatalf("homes: %v", home)
	}
	s.Kill()
	for client, node := range home {
		cluster.Node(node).Await(t, "end of "+client, func(e interop.Event) bool {
			return e.Event == "disconnect" && e.Client == client
		})
	}
}

// A gateway that is told to end closes its tunnels one by one over the time it
// was given, and then ends well.
func testDrains(t *testing.T, cluster *interop.Cluster) {
	s := connect(t, cluster, 30, func(_ int, c *interop.Client) {
		c.Options["transports"] = websocket
		c.Options["reconnection"] = false
	}, "-drain", "2s")
	s.gateway.Signal(t, syscall.SIGTERM)
	if code := s.gateway.End(t); code != 0 {
		t.Errorf("the gateway ended with %d", code)
	}
	s.Await(t, "the end of all clients", func(events []interop.Event) bool {
		n := 0
		for _, e := range events {
			if e.Event == "disconnect" {
				n++
			}
		}
		return n == len(s.names)
	})
	left := s.Events("disconnect")
	if spread := left[len(left)-1].At - left[0].At; spread < 500 {
		t.Errorf("all tunnels were closed within %d ms of 2 s", spread)
	}
	for _, e := range left {
		// Only the client of 4.x tells the code.
		if cluster.Version == interop.V4 && e.Code != 1012 {
			t.Errorf("%s: close code %d, want 1012", e.Client, e.Code)
		}
	}
}

// moved waits until all clients of the node are on others, and checks that no
// other client was disturbed, and that nobody was turned away.
func (s *scene) moved(t *testing.T, before map[string]string, node string) {
	t.Helper()
	if len(clientsOf(node, before)) == 0 {
		t.Fatalf("%s has no clients: %v", node, before)
	}
	s.Await(t, "the clients of "+node+" on other nodes", func(events []interop.Event) bool {
		return len(clientsOf(node, homes(events))) == 0
	})
	for _, e := range s.Events("disconnect") {
		if before[e.Client] != node {
			t.Errorf("%s was on %s and is disturbed: %s", e.Client, before[e.Client], e.Reason)
		}
	}
	for _, e := range s.Events("refused") {
		// A request without a session ID is the first one to a new node. What
		// was on its way to the old one is lost if it can't be sent twice.
		first := !strings.Contains(e.URL, "sid=")
		if e.Status >= 500 && (first || e.Method != "POST") {
			t.Errorf("%s: %s %s: %d", e.Client, e.Method, e.URL, e.Status)
		}
	}
}

// unmoved checks that every client is where it was and has a node that answers.
func (s *scene) unmoved(t *testing.T, before map[string]string) {
	t.Helper()
	var names []string
	for client := range before {
		names = append(names, client)
	}
	now := homes(s.Events("connect"))
	for client, node := range s.Ask(t, names, "who", nil) {
		if node != before[client] || now[client] != before[client] {
			t.Errorf("%s has moved from %s to %v", client, before[client], node)
		}
	}
}

// newcomers connects a dozen clients that have no node yet and returns how many
// of them the node got.
func (s *scene) newcomers(t *testing.T, node string) int {
	t.Helper()
	n := &scene{Clients: interop.StartClients(t, s.version), version: s.version, gateway: s.gateway}
	n.join(t, "newcomer", 12, nil)
	return len(clientsOf(node, homes(n.Events("connect"))))
}
