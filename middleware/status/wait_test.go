package status_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/bus"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/status"
)

// waiting is a call that has not been answered yet.
func (g *rig) waiting(query string) <-chan answer {
	done := make(chan answer, 1)
	before := status.Watchers(g.status)
	go func() { done <- g.call("GET", "backends/a?wait=empty"+query, "") }()
	eventually(g.t, "the call", func() bool { return status.Watchers(g.status) > before })
	return done
}

// A deploy script drains, waits until the last tunnel has ended, and stops the backend.
func TestWaitForEmpty(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", &status.Options{Authorize: everybody}, nil)
	one, _ := dial(t, newClient(t), g.srv.URL)
	two, _ := dial(t, newClient(t), g.srv.URL)
	eventually(t, "two tunnels", func() bool { return g.backend("a").Tunnels == 2 })
	g.steer("backends/a/drain", "") // without a deadline, so that only the clients end it
	done := g.waiting("")
	one.Close(websocket.StatusNormalClosure, "")
	eventually(t, "one tunnel", func() bool { return g.backend("a").Tunnels == 1 })
	select {
	case a := <-done:
		t.Fatalf("answered with a tunnel left: %d %s", a.status, a.body)
	default:
	}
	two.Close(websocket.StatusNormalClosure, "")
	a := <-done
	var b backendView
	if err := json.Unmarshal([]byte(a.body), &b); err != nil || a.status != 200 || b.ID != "a" || !b.Drain.Empty || b.Tunnels != 0 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.call("GET", "backends/a?wait=empty", ""); a.status != 200 {
		t.Errorf("again: %d %s", a.status, a.body)
	}
}

// A drain with a deadline ends the wait by itself.
func TestWaitForTheDeadline(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a b", &status.Options{Authorize: everybody}, nil)
	for range 10 {
		dial(t, newClient(t), g.srv.URL)
	}
	g.steer("backends/a/drain", `{"within":"100ms"}`)
	if a := g.call("GET", "backends/a?wait=empty&timeout=30s", ""); a.status != 200 || !strings.Contains(a.body, `"tunnels":0`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// The server's timeouts are meant for requests that are served at once, and don't end a wait.
func TestWaitOutlivesTimeouts(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", nil, nil)
	srv := httptest.NewUnstartedServer(g.status)
	srv.Config.ReadTimeout, srv.Config.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond
	srv.Start()
	t.Cleanup(srv.Close)
	g.srv.URL, g.mount = srv.URL, ""
	_ = g.pool.Drain("a", time.Second)
	if a := g.call("GET", "backends/a?wait=empty", ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// A wait that can't end well says so at once, or as soon as that is known.
func TestWaitInVain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		query  string
		during func(g *rig) // while the call waits; nil: it doesn't wait
		want   int
		says   string
	}{
		"another event":   {"&timeout=x", nil, 400, "timeout"},
		"time is up":      {"&timeout=50ms", nil, 504, "a isn't empty yet: 1 requests and tunnels are left"},
		"undrained":       {"", func(g *rig) { g.steer("backends/a/undrain", "") }, 409, "a serves"},
		"removed":         {"", func(g *rig) { _ = g.pool.Remove("a") }, 404, "removed"},
		"the status ends": {"", func(g *rig) { g.status.Close() }, 503, "shutting down"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, "a", &status.Options{Authorize: everybody}, nil)
			dial(t, newClient(t), g.srv.URL)
			eventually(t, "a tunnel", func() bool { return g.backend("a").Tunnels == 1 })
			g.steer("backends/a/drain", "")
			var a answer
			if tt.during == nil {
				a = g.call("GET", "backends/a?wait=empty"+tt.query, "")
			} else {
				done := g.waiting(tt.query)
				tt.during(g)
				a = <-done
			}
			if a.status != tt.want || !strings.Contains(a.body, tt.says) {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	g := newRig(t, "a", nil, nil)
	if a := g.call("GET", "backends/a?wait=empty", ""); a.status != 409 {
		t.Errorf("nobody drains it: %d %s", a.status, a.body)
	}
	if a := g.call("GET", "backends/a?wait=full", ""); a.status != 400 {
		t.Errorf("wait=full: %d %s", a.status, a.body)
	}
}

// A backend may be stopped when no gateway on the bus has anything there.
func TestWaitForOtherGateways(t *testing.T) {
	t.Parallel()
	memory := &bus.Memory{}
	one := newRig(t, "a", &status.Options{Authorize: everybody}, &limpet.Options{Bus: memory, Name: "gw1"})
	two := newRig(t, "a", nil, &limpet.Options{Bus: memory, Name: "gw2"})
	one.run()
	two.run()
	conn, _ := dial(t, newClient(t), two.srv.URL)
	eventually(t, "the other gateway", func() bool { return len(one.state("").Replicas) == 1 })
	one.steer("backends/a/drain", "")
	if a := one.call("GET", "backends/a?wait=empty&timeout=100ms", ""); a.status != 504 || !strings.Contains(a.body, "gw2") {
		t.Errorf("%d %s", a.status, a.body)
	}
	conn.Close(websocket.StatusNormalClosure, "")
	if a := one.call("GET", "backends/a?wait=empty&timeout=30s", ""); a.status != 200 || two.backend("a").Tunnels != 0 {
		t.Errorf("%d %s", a.status, a.body)
	}
}
