package middleware_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// A node that drains itself closes its listener and goes on serving those that it has. They
// stay, and no new ones come.
func TestNodeThatClosesItsListener(t *testing.T) {
	t.Parallel()
	for name, proxy := range map[string]*upgrade.Proxy{"event loop": {}, "pump": {NoEventLoop: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			polls, release := make(chan struct{}, 1), make(chan struct{})
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/poll":
					polls <- struct{}{}
					<-release
					io.WriteString(w, w.Header().Get("Node"))
				case "/health":
				default:
					echo.ServeHTTP(w, r)
				}
			})
			answer := sync.OnceFunc(func() { close(release) })
			nodes := map[string]*node{"a": newNode(t, "a", h), "b": newNode(t, "b", h)}
			t.Cleanup(answer) // before the nodes are closed, which wait for it
			pool := poolOf(t, &balancer.Options{Check: fastCheck}, nodes)
			run(t, pool)
			opts := &limpet.Options{Upgrade: proxy}
			srv, _ := serve(t, pool, opts)
			c := newClient(t)
			conn, res := dial(t, c, srv)
			home := res.Header.Get("Node")
			talk(t, conn)
			poll := make(chan string, 1)
			go func() {
				res, err := c.Get(srv.URL + "/poll")
				if err != nil {
					poll <- err.Error()
					return
				}
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				poll <- string(body)
			}()
			<-polls

			nodes[home].Listener.Close()
			await(t, pool, home, balancer.Draining)
			if s := pool.Get(home).Status(); s.Health != balancer.Sick || !strings.Contains(s.Why, "goes on serving") {
				t.Errorf("health %v, because %q", s.Health, s.Why)
			}
			talk(t, conn)
			for range 4 {
				other, res := dial(t, newClient(t), srv)
				if res.Header.Get("Node") == home {
					t.Error("a new client came to a node that takes none")
				}
				_ = other.CloseNow()
			}
			answer()
			if got := <-poll; got != home {
				t.Errorf("the poll that waited at the node got %q, want %q", got, home)
			}
			talk(t, conn)

			nodes[home].Kill()
			_, _, err := conn.Read(t.Context())
			if websocket.CloseStatus(err) != websocket.StatusServiceRestart {
				t.Errorf("the client read %v, want close code 1012", err)
			}
			await(t, pool, home, balancer.Down)
		})
	}
}
