package interop_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/limpet-go/limpet/internal/interop"
)

// Fifty clients over three nodes: each keeps the node that it found first, and
// no node stays empty.
func TestClientsStay(t *testing.T) {
	each(t, func(t *testing.T, v interop.Version) {
		cluster := interop.Start(t, v, 3)
		tests := []struct {
			name       string
			flags      []string
			transports []string
			cookies    bool
			mark       func(i int) (option, name, value string) // what tells clients apart, if it isn't a cookie
		}{
			{name: "cookie, polling", transports: polling, cookies: true},
			{name: "cookie, polling then upgrade", transports: upgrade, cookies: true},
			{name: "nothing, WebSocket only", transports: websocket},
			{
				name:       "header, polling",
				flags:      []string{"-affinity", "header:X-User"},
				transports: polling,
				mark:       func(i int) (_, _, _ string) { return "extraHeaders", "X-User", fmt.Sprint("user", i) },
			},
			{
				name:       "query, polling then upgrade",
				flags:      []string{"-affinity", "query:user"},
				transports: upgrade,
				mark:       func(i int) (_, _, _ string) { return "query", "user", fmt.Sprint("user", i) },
			},
			{
				name:       "address as a trusted proxy tells it, polling then upgrade",
				flags:      []string{"-affinity", "ip", "-trusted", "127.0.0.0/8"},
				transports: upgrade,
				mark:       func(i int) (_, _, _ string) { return "extraHeaders", "X-Forwarded-For", fmt.Sprintf("203.0.%d.7", i) },
			},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				s := connect(t, cluster, 50, func(i int, c *interop.Client) {
					c.Cookies = tt.cookies
					c.Options["transports"] = tt.transports
					if tt.mark != nil {
						option, name, value := tt.mark(i)
						c.Options[option] = map[string]string{name: value}
					}
				}, tt.flags...)
				s.stayed(t, tt.transports)
			})
		}
	})
}

// The clients of 4.x keep cookies outside of a browser too when asked to.
func TestClientsWithCredentialsStay(t *testing.T) {
	t.Parallel()
	cluster := interop.Start(t, interop.V4, 3)
	s := connect(t, cluster, 12, func(_ int, c *interop.Client) {
		c.Cookies = false
		c.Options["withCredentials"] = true
		c.Options["transports"] = upgrade
	})
	s.stayed(t, upgrade)
}

// stayed asks each client a few things and checks that it has connected once,
// hasn't been refused, is still on its node and on the last of the transports,
// and that no node is empty.
func (s *scene) stayed(t *testing.T, transports []string) {
	t.Helper()
	for range 3 {
		s.Ask(t, s.names, "echo", "still there?")
	}
	connects := s.Events("connect")
	home := homes(connects)
	if len(connects) != len(s.names) {
		t.Errorf("%d clients have connected %d times", len(s.names), len(connects))
	}
	for client, node := range s.Ask(t, s.names, "who", nil) {
		if node != home[client] {
			t.Errorf("%s is on %s, connected to %s", client, node, home[client])
		}
	}
	for client, transport := range s.Transports(t, s.names) {
		if want := transports[len(transports)-1]; transport != want {
			t.Errorf("%s is on %s, want %s", client, transport, want)
		}
	}
	for _, e := range slices.Concat(s.Events("disconnect"), s.Events("refused")) {
		t.Errorf("%+v", e)
	}
	for _, node := range []string{"node1", "node2", "node3"} {
		if len(clientsOf(node, home)) == 0 {
			t.Errorf("%s is empty: %v", node, home)
		}
	}
}
