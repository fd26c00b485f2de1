package main

import (
	"context"
	"net"
	"net/http"
	"testing"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// start starts the example with two servlet containers behind it.
func start(t *testing.T, session string) (*exampletest.Gateway, map[string]*exampletest.Backend) {
	t.Helper()
	backends := make(map[string]*exampletest.Backend)
	for _, id := range []string{"node1", "node2"} {
		backends[id] = exampletest.StartBackend(t, id, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/login" {
				http.SetCookie(w, &http.Cookie{Name: "JSESSIONID", Value: "0815." + id, Path: "/"})
			}
		})
	}
	return exampletest.Serve(t, func(ctx context.Context, ln net.Listener) error {
		return serve(ctx, ln, session, balancer.Static(backends["node1"].Spec(), backends["node2"].Spec()))
	}), backends
}

// The application's session says where it is, in a cookie or in the path.
func TestSession(t *testing.T) {
	t.Parallel()
	g, _ := start(t, "JSESSIONID|jsessionid")
	for range 2 {
		c := exampletest.NewClient(t, g)
		c.Stays(t, c.Get(t, "/login").Backend, "/")
	}
	one, _ := start(t, "JSESSIONID") // for both
	for _, id := range []string{"node1", "node2"} {
		exampletest.NewClient(t, g).Stays(t, id, "/page;jsessionid=0815."+id)
		exampletest.NewClient(t, one).Stays(t, id, "/page;JSESSIONID=0815."+id)
	}
}

// The route is set when it has changed, and then only.
func TestRouteChanged(t *testing.T) {
	t.Parallel()
	g, backends := start(t, "ROUTEID")
	c := exampletest.NewClient(t, g)
	first := c.Get(t, "/")
	home := first.Backend
	if got, want := first.Header.Get("Set-Cookie"), "ROUTEID=."+home+"; Path=/"; got != want {
		t.Errorf("a new client is told %q, want %q", got, want)
	}
	if got := c.Get(t, "/").Header.Get("Set-Cookie"); got != "" {
		t.Errorf("a client that is home is told %q", got)
	}
	c.Stays(t, home, "/")

	backends[home].Kill()
	moved := c.Get(t, "/")
	if got, want := moved.Header.Get("Set-Cookie"), "ROUTEID=."+moved.Backend+"; Path=/"; got != want || moved.Backend == home {
		t.Errorf("a client that was moved to %s is told %q, want %q", moved.Backend, got, want)
	}
	c.Stays(t, moved.Backend, "/")
	g.Drain(t)
}
