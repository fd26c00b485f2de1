package interop_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/limpet-go/limpet/internal/interop"
)

// The three ways in which a Socket.IO client connects.
var (
	polling   = []string{"polling"}
	upgrade   = []string{"polling", "websocket"}
	websocket = []string{"websocket"}
)

// crowd is n clients with names and options of their own.
func crowd(n int, url string, cookies bool, options func(name string) map[string]any) (clients []interop.Client, names []string) {
	for i := range n {
		name := fmt.Sprintf("client%d", i+1)
		clients = append(clients, interop.Client{Name: name, URL: url, Cookies: cookies, Options: options(name)})
		names = append(names, name)
	}
	return clients, names
}

// Fifty clients over three nodes: each keeps the node that it found first, and
// no node stays empty.
func TestClientsStay(t *testing.T) {
	versions(t, func(t *testing.T, v interop.Version) {
		cluster := interop.Start(t, v, 3)
		tests := []struct {
			name       string
			flags      []string
			cookies    bool
			transports []string
			client     func(name string, options map[string]any) // what marks the client, if it isn't a cookie
		}{
			{name: "cookie, polling", cookies: true, transports: polling},
			{name: "cookie, polling then upgrade", cookies: true, transports: upgrade},
			{name: "no mark, WebSocket only", transports: websocket},
			{
				name:       "header, polling",
				flags:      []string{"-affinity", "header:X-User"},
				transports: polling,
				client: func(name string, options map[string]any) {
					options["extraHeaders"] = map[string]string{"X-User": name}
				},
			},
			{
				name:       "query, polling then upgrade",
				flags:      []string{"-affinity", "query:user"},
				transports: upgrade,
				client: func(name string, options map[string]any) {
					options["query"] = map[string]string{"user": name}
				},
			},
			{
				name:       "address behind another proxy, polling then upgrade",
				flags:      []string{"-affinity", "ip", "-trusted", "127.0.0.0/8"},
				transports: upgrade,
				client: func(name string, options map[string]any) {
					var i int
					fmt.Sscanf(name, "client%d", &i)
					options["extraHeaders"] = map[string]string{"X-Forwarded-For": fmt.Sprintf("203.0.%d.7", i)}
				},
			},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				gateway := interop.StartGateway(t, cluster, tt.flags...)
				driver := interop.StartClients(t, v)
				clients, names := crowd(50, gateway.URL, tt.cookies, func(name string) map[string]any {
					options := map[string]any{"transports": tt.transports}
					if tt.client != nil {
						tt.client(name, options)
					}
					return options
				})
				driver.Open(t, clients...)
				for range 3 {
					driver.Ask(t, names, "echo", "still there?")
				}
				stayed(t, driver, names, tt.transports)
				driver.Close(t)
			})
		}
	})
}

// stayed checks that each client has connected once, hasn't been refused, is
// still on its node and on the transport that it wants most, and that no node is
// empty.
func stayed(t *testing.T, driver *interop.Clients, names, transports []string) {
	t.Helper()
	homes := make(map[string]int)
	home := make(map[string]string)
	for _, e := range driver.Events("connect") {
		if home[e.Client] != "" {
			t.Errorf("%s connected again, to %s after %s", e.Client, e.Node, home[e.Client])
		}
		home[e.Client] = e.Node
		homes[e.Node]++
	}
	for client, node := range driver.Ask(t, names, "who", nil) {
		if node != home[client] {
			t.Errorf("%s is on %s, connected to %s", client, node, home[client])
		}
	}
	for client, transport := range driver.Transports(t, names) {
		if want := transports[len(transports)-1]; transport != want {
			t.Errorf("%s is on %s, want %s", client, transport, want)
		}
	}
	for _, e := range slices.Concat(driver.Events("disconnect"), driver.Events("refused")) {
		t.Errorf("%+v", e)
	}
	if len(homes) != 3 {
		t.Errorf("clients by node: %v", homes)
	}
}

// Jars of their own: the clients of 4.x keep cookies in Node when asked to.
func TestClientsWithCredentialsStay(t *testing.T) {
	t.Parallel()
	cluster := interop.Start(t, interop.V4, 3)
	gateway := interop.StartGateway(t, cluster)
	driver := interop.StartClients(t, interop.V4)
	clients, names := crowd(12, gateway.URL, false, func(string) map[string]any {
		return map[string]any{"transports": upgrade, "withCredentials": true}
	})
	driver.Open(t, clients...)
	driver.Ask(t, names, "echo", "still there?")
	stayed(t, driver, names, upgrade)
}
