package main

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/interop"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// gateway starts the example in a mode.
func gateway(t *testing.T, mode string, specs ...string) *exampletest.Gateway {
	t.Helper()
	opts, err := options(mode)
	if err != nil {
		t.Fatal(err)
	}
	return exampletest.Serve(t, func(ctx context.Context, ln net.Listener) error { return serve(ctx, ln, opts, specs...) })
}

func TestInsert(t *testing.T) {
	t.Parallel()
	checks := make(chan string, 100)
	handle := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			checks <- r.Method
			return
		}
		exampletest.Echo(w, r)
	}
	backends := map[string]*exampletest.Backend{
		"a": exampletest.StartBackend(t, "a", handle),
		"b": exampletest.StartBackend(t, "b", handle),
	}
	g := gateway(t, "insert", backends["a"].Spec(), backends["b"].Spec())
	if method := <-checks; method != http.MethodHead {
		t.Errorf("the health check is a %s", method)
	}

	c := exampletest.NewClient(t, g)
	first := c.Get(t, "/", "Cookie", "theme=dark")
	set := first.Cookies()
	if len(set) != 1 || set[0].Name != "SERVERID" || !set[0].HttpOnly || !strings.Contains(first.Header.Get("Cache-Control"), "private") {
		t.Errorf("the first answer's header is %v; want an HttpOnly SERVERID that isn't cached", first.Header)
	}
	second := c.Get(t, "/", "Cookie", "theme=dark")
	if len(second.Cookies()) != 0 || second.Body != "theme=dark" {
		t.Errorf("the second answer sets %v, and the backend got %q; want neither to have the cookie", second.Cookies(), second.Body)
	}
	home := first.Backend
	c.Stays(t, home, "/")

	backends[home].Kill()
	delete(backends, home)
	for survivor := range backends {
		c.Stays(t, survivor, "/")
	}
	g.Drain(t)
}

func TestPrefix(t *testing.T) {
	t.Parallel()
	handle := func(w http.ResponseWriter, r *http.Request) {
		if _, err := r.Cookie("io"); err != nil {
			http.SetCookie(w, &http.Cookie{Name: "io", Value: "sid", Path: "/", HttpOnly: true})
		}
		exampletest.Echo(w, r)
	}
	g := gateway(t, "prefix", exampletest.StartBackend(t, "a", handle).Spec(), exampletest.StartBackend(t, "b", handle).Spec())
	for range 2 {
		c := exampletest.NewClient(t, g)
		first := c.Get(t, "/")
		if got, want := c.Cookie(t, "io"), first.Backend+"~sid"; got != want {
			t.Errorf("the cookie is %q, want %q", got, want)
		}
		if got := first.Header.Get("Cache-Control"); got != "private" {
			t.Errorf("Cache-Control is %q", got)
		}
		second := c.Get(t, "/")
		if second.Body != "io=sid" || second.Header.Get("Cache-Control") != "" {
			t.Errorf("the backend got %q, want its own cookie; the answer's Cache-Control is %q", second.Body, second.Header.Get("Cache-Control"))
		}
		c.Stays(t, first.Backend, "/")
	}
}

// Socket.IO 2 sets the cookie io itself: with it polling clients are at home,
// without it they are not.
func TestSocketIO(t *testing.T) {
	t.Parallel()
	cluster := interop.Start(t, interop.V2, 2)
	var specs []string
	for _, n := range cluster.Nodes {
		specs = append(specs, n.Name+"="+n.URL())
	}
	g := gateway(t, "prefix", specs...)
	clients := interop.StartClients(t, cluster.Version)
	names := []string{"ann", "bob", "cid", "dan"}
	for i, name := range names {
		clients.Open(t, interop.Client{Name: name, URL: "http://" + g.Addr, Cookies: true, Options: map[string]any{
			"transports": [][]string{{"polling"}, {"polling", "websocket"}}[i%2],
		}})
	}
	for range 5 {
		clients.Ask(t, names, "echo", "hello")
	}
	homes := make(map[string]bool)
	for _, e := range clients.Events("connect") {
		homes[e.Node] = true
	}
	if len(homes) != 2 {
		t.Errorf("all clients are at %v", homes)
	}
	bad := slices.Concat(clients.Events("refused"), clients.Events("disconnect"))
	if len(bad) > 0 {
		t.Errorf("clients weren't at home: %+v", bad)
	}
}
