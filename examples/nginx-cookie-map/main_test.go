package main

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestCookieMap(t *testing.T) {
	a, b := exampletest.StartBackend(t, "a", exampletest.Echo), exampletest.StartBackend(t, "b", exampletest.Echo)
	g := exampletest.Serve(t, func(ctx context.Context, ln net.Listener) error {
		return serve(ctx, ln, balancer.Static(a.Spec(), b.Spec()))
	})
	server := map[string]string{"a": "1", "b": "2"}

	// New clients are told where they belong, in turn, and stay there.
	homes := make(map[string]*exampletest.Client)
	for range 2 {
		c := exampletest.NewClient(t, g)
		first := c.Get(t, "/")
		if got := c.Cookie(t, "server"); got != server[first.Backend] {
			t.Errorf("answered by %s, the cookie is %q", first.Backend, got)
		}
		c.Stays(t, first.Backend, "/socket.io/")
		homes[first.Backend] = c
	}
	if len(homes) != 2 {
		t.Errorf("two new clients, both at %v", homes)
	}

	// A client may choose, and the backend sees its cookie.
	if got := exampletest.NewClient(t, g).Get(t, "/", "Cookie", "theme=dark; server=2"); got.Backend != "b" || got.Body != "theme=dark; server=2" {
		t.Errorf("with server=2: answered by %s, which got %q", got.Backend, got.Body)
	}
	if got := exampletest.NewClient(t, g).Get(t, "/server.js"); !strings.Contains(got.Body, `"server", ["1","2"]`) {
		t.Errorf("the script is %q", got.Body)
	}

	// The clients of a dead server are served all the same.
	a.Kill()
	homes["a"].Stays(t, "b", "/")
	g.Drain(t)
}
