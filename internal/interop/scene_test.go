package interop_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/interop"
)

// The three ways in which a Socket.IO client connects.
var (
	polling   = []string{"polling"}
	upgrade   = []string{"polling", "websocket"}
	websocket = []string{"websocket"}

	transports = [][]string{polling, upgrade, websocket}
)

// retryDelay is how long the clients wait before they connect again.
const retryDelay = 200 * time.Millisecond

// transportsOf takes turns in an order of its own: with three nodes in turn, each
// of them gets clients of every kind.
func transportsOf(i int) []string { return transports[(i+i/3)%3] }

// scene is a gateway with clients of its own in front of a cluster.
type scene struct {
	*interop.Clients
	version interop.Version
	gateway *interop.Gateway
	names   []string
}

// connect starts a gateway and connects n clients, prepared by the test: by
// default they have a cookie jar, and take turns with the transports.
func connect(t *testing.T, cluster *interop.Cluster, n int, prepare func(i int, c *interop.Client), flags ...string) *scene {
	t.Helper()
	s := &scene{
		Clients: interop.StartClients(t, cluster.Version),
		version: cluster.Version,
		gateway: interop.StartGateway(t, cluster, flags...),
	}
	s.join(t, "client", n, prepare)
	return s
}

// join connects n more clients.
func (s *scene) join(t *testing.T, prefix string, n int, prepare func(i int, c *interop.Client)) {
	t.Helper()
	clients := make([]interop.Client, n)
	for i := range clients {
		clients[i] = interop.Client{Name: fmt.Sprint(prefix, i), URL: s.gateway.URL, Cookies: true, Options: map[string]any{
			"transports":           transportsOf(i),
			"reconnectionDelay":    retryDelay.Milliseconds(),
			"reconnectionDelayMax": retryDelay.Milliseconds(),
			"randomizationFactor":  0,
		}}
		if prepare != nil {
			prepare(i, &clients[i])
		}
		s.names = append(s.names, clients[i].Name)
	}
	s.Open(t, clients...)
}

// homes returns the node that each client connected to last.
func homes(events []interop.Event) map[string]string {
	home := make(map[string]string)
	for _, e := range events {
		if e.Event == "connect" {
			home[e.Client] = e.Node
		}
	}
	return home
}

// clientsOf returns the clients whose home is the node.
func clientsOf(node string, home map[string]string) (clients []string) {
	for client, n := range home {
		if n == node {
			clients = append(clients, client)
		}
	}
	return clients
}
