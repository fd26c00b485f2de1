package middleware_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	limpet "github.com/limpet-go/limpet/middleware"
)

// A sessionsNode is a node of Engine.IO whose sessions only poll.
type sessionsNode struct {
	open sync.Map // of chan struct{} by session, closed at its end
	n    atomic.Int64
}

func (n *sessionsNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sid := r.URL.Query().Get("sid")
	if sid == "" {
		sid = rand.Text()
		n.open.Store(sid, make(chan struct{}))
		n.n.Add(1)
		fmt.Fprintf(w, `0{"sid":%q}`, sid)
		return
	}
	v, known := n.open.Load(sid)
	switch {
	case !known:
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"code":1,"message":"Session ID unknown"}`)
	case r.Method == http.MethodPost:
		if _, first := n.open.LoadAndDelete(sid); first {
			n.n.Add(-1)
			close(v.(chan struct{}))
		}
		io.WriteString(w, "ok")
	default:
		select {
		case <-v.(chan struct{}):
			io.WriteString(w, "1")
		case <-r.Context().Done():
		}
	}
}

// Clients that poll are moved as those with a WebSocket are: their node ends the session, and
// they open another one, where there is room.
func TestRebalancePolls(t *testing.T) {
	t.Parallel()
	nodes := map[string]*sessionsNode{"a": {}, "b": {}}
	pool := poolOf(t, nil, map[string]*node{"a": newNode(t, "a", nodes["a"]), "b": newNode(t, "b", nodes["b"])})
	ok(t, pool.Off("b"))
	srv, _ := serve(t, pool, &limpet.Options{Affinity: &affinity.EngineIO{Secrets: testKeys}, Rebalance: 2 * time.Second})
	const clients = 30
	var sessions atomic.Int64
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	for range clients {
		all.Go(func() {
			for t.Context().Err() == nil {
				c := &pollClient{Client: http.DefaultClient, base: srv.URL, query: "EIO=4&transport=polling"}
				ask := func(sid string) string {
					r, _ := http.NewRequestWithContext(t.Context(), "GET", c.base+"/socket.io/?"+c.query+sid, nil)
					res, err := c.Do(r)
					if err != nil {
						return ""
					}
					defer res.Body.Close()
					b, _ := io.ReadAll(res.Body)
					return string(b)
				}
				_, sid, opened := strings.Cut(ask(""), `"sid":"`)
				if !opened {
					continue
				}
				sessions.Add(1)
				sid, _, _ = strings.Cut(sid, `"`)
				ask("&sid=" + sid) // until it is over
			}
		})
	}
	until(t, "all have a session", func() bool { return nodes["a"].n.Load() == clients })
	ok(t, pool.Undrain("b"))
	until(t, "b has its share", func() bool { return nodes["b"].n.Load() >= clients/3 })
	time.Sleep(500 * time.Millisecond) // for more to happen than should
	if b, n := nodes["b"].n.Load(), sessions.Load()-clients; b > clients*2/3 || n > clients*2/3 {
		t.Errorf("b has %d sessions, and %d clients were moved", b, n)
	}
}
