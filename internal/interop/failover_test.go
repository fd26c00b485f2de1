package interop_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/interop"
	"github.com/limpet-go/limpet/internal/process"
)

// What becomes of the clients when something happens to their node. All of this
// must be noticed by itself: the heartbeats of these nodes are slower than the
// tests' patience.
func TestFailover(t *testing.T) {
	// Not parallel: it measures.
	for _, v := range []interop.Version{interop.V2, interop.V3, interop.V4} {
		t.Run(string(v), func(t *testing.T) {
			cluster := interop.Start(t, v, 3)
			for _, tt := range []struct {
				name string
				test func(*testing.T, *interop.Cluster)
			}{
				{"node killed", testKilled},
				{"node hangs and comes back", testHung},
				{"node asks to be left", testLeft},
				{"client leaves", testLeaves},
				{"gateway drains", testDrains},
			} {
				t.Run(tt.name, func(t *testing.T) { tt.test(t, cluster) })
			}
		})
	}
}

// Every client is back within a second and its own delay.
func testKilled(t *testing.T, cluster *interop.Cluster) {
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
	cluster.Nodes[0].Restart(t)
}

// A hung node is found by its health page.
func testHung(t *testing.T, cluster *interop.Cluster) {
	s := connect(t, cluster, 30, nil, "-health-interval", "200ms")
	s.Load(t, 100)
	before := homes(s.Events("connect"))
	cluster.Nodes[0].Signal(t, syscall.SIGSTOP)
	s.moved(t, before, "node1")

	// Once it answers again it gets new clients, and nobody is moved for that.
	after := homes(s.Events("connect"))
	cluster.Nodes[0].Signal(t, syscall.SIGCONT)
	s.awaitNewcomers(t, "node1", true)
	s.unmoved(t, after)
}

// A node whose health page says no keeps its clients and gets no others. That is
// how to restart nodes one after the other without a failed request.
func testLeft(t *testing.T, cluster *interop.Cluster) {
	s := connect(t, cluster, 30, nil, "-health-interval", "200ms")
	s.Load(t, 100)
	before := homes(s.Events("connect"))
	cluster.Nodes[0].Signal(t, syscall.SIGUSR2)
	s.awaitNewcomers(t, "node1", false)
	s.unmoved(t, before)

	cluster.Nodes[0].Kill()
	s.moved(t, before, "node1")
	cluster.Nodes[0].Restart(t)
	s.awaitNewcomers(t, "node1", true)
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
			t.Errorf("%s was on %s: %+v", e.Client, before[e.Client], e)
		}
	}
	for _, e := range s.Events("refused") {
		// A request without a session ID is the first one to a new node. What
		// was on its way to the old one is lost if it can't be sent twice.
		first := !strings.Contains(e.URL, "sid=")
		if e.Status >= 500 && (first || e.Method != "POST") {
			t.Errorf("%+v", e)
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

// awaitNewcomers connects new clients until the node gets some of them, or until
// it gets none.
func (s *scene) awaitNewcomers(t *testing.T, node string, some bool) {
	t.Helper()
	newcomers := &scene{Clients: interop.StartClients(t, s.version), version: s.version, gateway: s.gateway}
	for start := time.Now(); time.Since(start) < process.Patience; {
		newcomers.join(t, "newcomer", 6, nil)
		connects := newcomers.Events("connect")
		if got := len(clientsOf(node, homes(connects[len(connects)-6:]))); (got > 0) == some {
			return
		}
		newcomers.Close(t)
	}
	t.Fatalf("%s gets new clients: want %v", node, some)
}
