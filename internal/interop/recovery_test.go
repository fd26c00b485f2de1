package interop_test

import (
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/interop"
	"github.com/limpet-go/limpet/middleware"
)

// A node is drained while messages go to everybody: each of its clients, whatever transport
// it is on, comes to another node, which gives it the state of its connection, and nobody
// misses a message. That needs the node to know that its client has left before the client
// is at another one.
func TestDrainedClientsRecover(t *testing.T) {
	t.Parallel()
	cluster := interop.StartAdapter(t, interop.V4, 3, "streams-recovery")
	pool, err := balancer.NewPool(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range cluster.Nodes {
		b, err := balancer.NewBackend(n.Name, n.URL(), 1)
		if err == nil {
			err = pool.Add(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	secrets := [][]byte{[]byte(replicaKey)}
	gw, err := middleware.NewGateway(pool, &middleware.Options{
		Affinity: affinity.Chain{&affinity.EngineIO{Secrets: secrets}, &affinity.Cookie{Secrets: secrets}},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gw)
	t.Cleanup(srv.Close)
	s := &scene{Clients: interop.StartClients(t, interop.V4), version: interop.V4, gateway: &interop.Gateway{URL: srv.URL}}
	t.Cleanup(s.Kill) // or their polls would keep the server
	s.join(t, "client", 18, func(_ int, c *interop.Client) {
		c.Options["reconnectionDelay"], c.Options["reconnectionDelayMax"] = 3000, 3000
	})
	s.Hear(t, s.names, "number")
	leaving := clientsOf("node1", homes(s.Events("connect")))
	if len(leaving) < len(transports) {
		t.Fatalf("at node1 are only %v", leaving)
	}

	sent := 0
	emit := func() {
		cluster.Nodes[1].Emit(t, interop.Emission{NSP: "/", Call: "emit", Args: []any{"number", sent}})
		sent++
	}
	emit() // a client has something to go on from
	s.Await(t, "the first message", func(events []interop.Event) bool { return len(numbers(events, 0)) == len(s.names) })
	if err := pool.Drain("node1", 500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); len(s.Events("disconnect")) < len(leaving); {
		if time.Now().After(end) {
			t.Fatalf("of %v have left: %+v", leaving, s.Events("disconnect"))
		}
		emit()
		time.Sleep(20 * time.Millisecond) // the pace of the messages
	}
	for range 5 {
		emit()
	}
	// The adapter misses messages that are sent in the moment when it gives a client its
	// state, between its last look at the stream and the client's being there.
	s.Await(t, "the return of all", func([]interop.Event) bool { return len(clientsOf("node1", homes(s.Events("connect")))) == 0 })
	emit()

	s.Await(t, "the last message at all clients", func(events []interop.Event) bool {
		return len(numbers(events, sent-1)) == len(s.names)
	})
	want := make([]int, sent)
	for i := range want {
		want[i] = i
	}
	for client, got := range numbers(s.Events("got"), -1) {
		if !slices.Equal(got, want) {
			t.Errorf("%s got %v of %d messages", client, got, sent)
		}
	}
	connects := s.Events("connect")
	for _, e := range connects[len(s.names):] {
		if !slices.Contains(leaving, e.Client) || !e.Recovered {
			t.Errorf("%s came to %s, recovered: %v", e.Client, e.Node, e.Recovered)
		}
	}
	if back := len(connects) - len(s.names); back != len(leaving) {
		t.Errorf("%d clients have left, and came back %d times", len(leaving), back)
	}
	for i, name := range s.names {
		if !slices.Contains(leaving, name) || !slices.Equal(transportsOf(i), polling) {
			continue
		}
		left := cluster.Nodes[0].Await(t, "end of "+name, func(e interop.Event) bool {
			return e.Event == "disconnect" && e.Client == name
		})
		if left.Reason != "transport close" {
			t.Errorf("%s, which polls, left node1 by %q", name, left.Reason)
		}
	}
}

// numbers returns the numbers that each client has got, or only those that are n, unless n
// is negative.
func numbers(events []interop.Event, n int) map[string][]int {
	got := make(map[string][]int)
	for _, e := range events {
		if e.Event == "got" && e.Kind == "number" {
			if number := int(e.Args[0].(float64)); n < 0 || number == n {
				got[e.Client] = append(got[e.Client], number)
			}
		}
	}
	return got
}
