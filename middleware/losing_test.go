package middleware_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// Whatever requests of a session are under way or begin just after the death of its node,
// none is answered with an error: they get the answer of Engine.IO, by which the client
// opens a new session. So it is with whatever pace the checks have.
func TestRequestsOfALostSession(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		check balancer.Check
		hangs bool
	}{
		{name: "by default"},
		{name: "a slow interval", check: balancer.Check{Interval: 5 * time.Second}},
		{name: "many checks in a row", check: balancer.Check{Fall: 20}},
		{name: "slow and many", check: balancer.Check{Interval: 3 * time.Second, Fall: 10}},
		{name: "with a page", check: balancer.Check{Path: "/health", Fall: 5}},
		{name: "hangs", check: balancer.Check{Path: "/health", Interval: 100 * time.Millisecond, Timeout: 100 * time.Millisecond}, hangs: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, engines := engines(t, 3)
			nodes := make(map[string]*node)
			var hung atomic.Pointer[string]
			waits := make(chan struct{}, 100)
			for id, e := range engines {
				nodes[id] = newNode(t, id, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body) // or the server doesn't notice that the client is gone
					stopped := func() bool { h := hung.Load(); return h != nil && *h == id }
					if r.URL.Path == "/health" && !stopped() {
						return
					}
					if r.URL.Query().Has("sid") && r.Method == "GET" || stopped() {
						if r.URL.Path != "/health" {
							waits <- struct{}{}
						}
						<-r.Context().Done()
						return
					}
					e.ServeHTTP(w, r)
				}))
			}
			pool := poolOf(t, &balancer.Options{Check: &tt.check}, nodes)
			run(t, pool)
			srv, _ := serve(t, pool, &limpet.Options{Affinity: engineIO()})
			c := newClient(t)
			sid, home := open(t, c, srv.URL)
			for range 3 { // connections that are kept
				post(t, c, srv.URL, sid)
			}

			var all sync.WaitGroup
			ask := func(method string) {
				all.Go(func() {
					var data io.Reader
					if method == "POST" {
						data = strings.NewReader("4hello")
					}
					r, err := http.NewRequestWithContext(t.Context(), method, srv.URL+"/socket.io/?EIO=4&transport=polling&sid="+sid, data)
					if err != nil {
						t.Error(err)
						return
					}
					res, err := c.Do(r)
					if err != nil {
						t.Error(err)
						return
					}
					defer res.Body.Close()
					if body, _ := io.ReadAll(res.Body); res.StatusCode != 400 || string(body) != `{"code":1,"message":"Session ID unknown"}` {
						t.Errorf("a %s got %d %q", method, res.StatusCode, body)
					}
				})
			}
			for range 2 {
				ask("GET")
			}
			for range 2 {
				<-waits
			}
			if tt.hangs {
				hung.Store(&home)
			} else {
				nodes[home].Kill()
			}
			for range 5 {
				ask("GET")
				ask("POST")
			}
			all.Wait()
		})
	}
}

// A request of a session doesn't wait for a judgement that will never come.
func TestNobodyJudges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		fail func(n *node, endChecks func(), exhausted *atomic.Bool)
	}{
		{"the checks have ended", func(n *node, endChecks func(), _ *atomic.Bool) { endChecks(); n.Kill() }},
		{"this machine has no descriptor left", func(_ *node, _ func(), exhausted *atomic.Bool) { exhausted.Store(true) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes, _ := engines(t, 2)
			var exhausted atomic.Bool
			var dialer balancer.Dialer
			transport := &balancer.Transport{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if exhausted.Load() {
					return nil, os.NewSyscallError("socket", syscall.EMFILE)
				}
				return dialer.DialContext(ctx, network, addr)
			}}
			// With so many checks in a row a request would wait for longer than the test.
			pool := poolOf(t, &balancer.Options{Transport: transport, Check: &balancer.Check{Fall: 100}}, nodes)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = pool.Run(ctx)
			}()
			endChecks := func() { cancel(); <-ended }
			defer endChecks()
			srv, _ := serve(t, pool, &limpet.Options{Affinity: engineIO()})
			c := newClient(t)
			sid, home := open(t, c, srv.URL)
			tt.fail(nodes[home], endChecks, &exhausted)
			transport.CloseIdleConnections()

			within, done := context.WithTimeout(t.Context(), patience)
			defer done()
			r, err := http.NewRequestWithContext(within, "POST", srv.URL+"/socket.io/?EIO=4&transport=polling&sid="+sid, strings.NewReader("4hello"))
			if err != nil {
				t.Fatal(err)
			}
			res, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != 502 {
				t.Errorf("status %d, want 502", res.StatusCode)
			}
		})
	}
}

// post sends data in a session whose node is well.
func post(t *testing.T, c *http.Client, url, sid string) {
	t.Helper()
	res, err := c.Post(url+"/socket.io/?EIO=4&transport=polling&sid="+sid, "text/plain", strings.NewReader("4hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		t.Fatalf("status %d", res.StatusCode)
	}
	_, _ = io.Copy(io.Discard, res.Body)
}
