package middleware_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/bus"
	limpet "github.com/limpet-go/limpet/middleware"
)

// A client that is moved gets its new home with its next request, and keeps it.
func TestMovePin(t *testing.T) {
	t.Parallel()
	for name, aff := range map[string]affinity.Affinity{
		"cookie": &affinity.Cookie{Secrets: testKeys},
		"table":  &affinity.Table{Key: affinity.Query("user")},
		"hash":   &affinity.Hash{Key: affinity.Query("user")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, _ := cluster(t, 3, nil)
			srv, gw := serve(t, pool, &limpet.Options{Affinity: aff})
			w := watch(t, gw)
			moved, stays := newClient(t), newClient(t)
			visit := func(c *http.Client, user string) (home, key string) {
				res, _ := get(t, c, srv.URL+"?user="+user)
				return res.Header.Get("Node"), w.next(t).Key
			}
			home, key := visit(moved, "m")
			other, _ := visit(stays, "s")
			for _, target := range []string{"a", "b", "c", home} {
				ok(t, gw.MovePin(t.Context(), key, target))
				for range 2 {
					got, k := visit(moved, "m")
					if got != target {
						t.Errorf("moved to %s, answered by %s", target, got)
					}
					key = k
				}
				if got, _ := visit(stays, "s"); got != other {
					t.Errorf("another client went from %s to %s", other, got)
				}
			}
			// Where it was moved to, it has a home like any other.
			_ = pool.Off(home)
			next, _ := visit(moved, "m")
			if next == home {
				t.Error("answered by a backend that is off")
			}
			_ = pool.Undrain(home)
			if got, _ := visit(moved, "m"); name != "hash" && got != next {
				t.Errorf("its home is %s, but it was led back to %s", next, got)
			}
			if gw.MovePin(t.Context(), key, "nobody") == nil || gw.MovePin(t.Context(), "", "a") == nil {
				t.Error("a client can be moved to nobody, or nobody to a")
			}
			ok(t, gw.MovePin(t.Context(), key, ""))
			home, _ = visit(moved, "m")
			if got, _ := visit(moved, "m"); got != home {
				t.Errorf("placed anew at %s, and then at %s", home, got)
			}
		})
	}
}

// A client isn't moved to a backend that loses its clients, and to ask where it goes
// doesn't begin its move.
func TestMovePinWhileBackendsAreUp(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 3, nil)
	srv, gw := serve(t, pool, &limpet.Options{Affinity: &affinity.Table{Key: affinity.Query("user")}})
	w := watch(t, gw)
	c := newClient(t)
	res, _ := get(t, c, srv.URL+"?user=m")
	home, key := res.Header.Get("Node"), w.next(t).Key
	var others []string
	for _, id := range []string{"a", "b", "c"} {
		if id != home {
			others = append(others, id)
		}
	}
	goes := func() string {
		_, b := gw.FindPin(httptest.NewRequest("GET", srv.URL+"?user=m", nil))
		return b.ID()
	}
	if got := goes(); got != home {
		t.Errorf("would go to %s, not to its home %s", got, home)
	}
	ok(t, pool.Drain(others[0], 0)) // which keeps the clients that it has
	ok(t, gw.MovePin(t.Context(), key, others[0]))
	res, _ = get(t, c, srv.URL+"?user=m")
	if got := res.Header.Get("Node"); got == others[0] {
		t.Errorf("moved to %s, which is drained", got)
	}
	ok(t, gw.MovePin(t.Context(), key, others[1]))
	if got := goes(); got != others[1] {
		t.Errorf("would go to %s, although it is moved to %s", got, others[1])
	}
	res, _ = get(t, c, srv.URL+"?user=m")
	if got := res.Header.Get("Node"); got != others[1] {
		t.Errorf("went to %s, although it is moved to %s", got, others[1])
	}
}

// A move closes the client's tunnels and ends its sessions, on all replicas.
func TestMovePinOverTheBus(t *testing.T) {
	t.Parallel()
	mem := &bus.Memory{}
	wait := heard(t, mem)
	nodes := map[string]*node{"a": newNode(t, "a", echo), "b": newNode(t, "b", echo)}
	var servers []*httptest.Server
	var gateways []*limpet.Gateway
	var watchers []*watcher
	for range 2 {
		srv, gw := serve(t, poolOf(t, nil, nodes), &limpet.Options{Bus: mem})
		runGateway(t, gw)
		servers, gateways, watchers = append(servers, srv), append(gateways, gw), append(watchers, watch(t, gw))
	}
	wait(2)
	c := newClient(t)
	conn, res := dial(t, c, servers[1])
	home, key := res.Header.Get("Node"), watchers[1].next(t).Key
	target := map[string]string{"a": "b", "b": "a"}[home]
	ok(t, gateways[0].MovePin(t.Context(), key, target))
	if _, _, err := conn.Read(t.Context()); err == nil {
		t.Error("the tunnel goes on")
	}
	if _, res := dial(t, c, servers[1]); res.Header.Get("Node") != target {
		t.Errorf("came back to %s, want %s", res.Header.Get("Node"), target)
	}
}

// A message that waits for its answer while the client is moved is answered.
func TestMovePinAnswers(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}), make(chan struct{})
	pool, _ := cluster(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		if _, _, err := conn.Read(r.Context()); err != nil {
			return
		}
		close(asked)
		<-answer
		_ = conn.Write(r.Context(), websocket.MessageText, []byte("answer"))
		_, _, _ = conn.Read(r.Context())
	}))
	srv, gw := serve(t, pool, &limpet.Options{Affinity: &affinity.Cookie{Secrets: testKeys}})
	w := watch(t, gw)
	c := newClient(t)
	res, _ := get(t, c, srv.URL)
	key := w.next(t).Key
	conn, _ := dial(t, c, srv)
	ok(t, conn.Write(t.Context(), websocket.MessageText, []byte("question")))
	<-asked
	ok(t, gw.MovePin(t.Context(), key, map[string]string{"a": "b", "b": "a"}[res.Header.Get("Node")]))
	close(answer)
	if _, data, err := conn.Read(t.Context()); string(data) != "answer" {
		t.Errorf("got %q, %v", data, err)
	}
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the tunnel ended with %v", err)
	}
}

// A tunnel that is being opened at the old home while its client is moved doesn't stay there.
func TestMovePinDuringAHandshake(t *testing.T) {
	t.Parallel()
	var during func()
	pool, _ := cluster(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" && during != nil {
			during()
		}
		echo.ServeHTTP(w, r)
	}))
	srv, gw := serve(t, pool, &limpet.Options{Affinity: &affinity.Cookie{Secrets: testKeys}})
	w := watch(t, gw)
	c := newClient(t)
	res, _ := get(t, c, srv.URL)
	home, key := res.Header.Get("Node"), w.next(t).Key
	target := map[string]string{"a": "b", "b": "a"}[home]
	during = func() { ok(t, gw.MovePin(t.Context(), key, target)) }
	conn, res := dial(t, c, srv)
	during = nil
	if res.Header.Get("Node") != home {
		t.Fatalf("opened at %s, before the move", res.Header.Get("Node"))
	}
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the tunnel ended with %v", err)
	}
	conn, res = dial(t, c, srv)
	defer conn.CloseNow()
	if res.Header.Get("Node") != target {
		t.Errorf("came back to %s, want %s", res.Header.Get("Node"), target)
	}
}

// A session of Engine.IO can't move: it is answered as if its node were gone.
func TestMoveSession(t *testing.T) {
	t.Parallel()
	nodes, _ := engines(t, 2)
	srv, gw := serve(t, poolOf(t, nil, nodes), &limpet.Options{
		Affinity: affinity.Chain{&affinity.EngineIO{Secrets: testKeys}, &affinity.Cookie{Secrets: testKeys}},
	})
	w := watch(t, gw)
	c := newClient(t)
	sid, home := open(t, c, srv.URL)
	key := w.next(t).Key
	target := map[string]string{"a": "b", "b": "a"}[home]
	ok(t, gw.MovePin(t.Context(), key, target))
	if res, _ := poll(t, c, srv.URL, sid); res.StatusCode != 400 || res.Header.Get("Node") != "" {
		t.Errorf("the old session got %d from %q", res.StatusCode, res.Header.Get("Node"))
	}
	if rec := w.next(t); rec.Source != limpet.SourceAffinity || rec.Status != 400 || rec.Backend != nil {
		t.Errorf("%d of the %v at %v", rec.Status, rec.Source, rec.Backend)
	}
	sid, home = open(t, c, srv.URL)
	if home != target {
		t.Errorf("the new session is at %s, want %s", home, target)
	}
	if res, _ := poll(t, c, srv.URL, sid); res.StatusCode != 200 {
		t.Errorf("the new session got %d", res.StatusCode)
	}
}

// A client that is placed anew where it was keeps its next session.
func TestForgetSession(t *testing.T) {
	t.Parallel()
	nodes, _ := engines(t, 1)
	srv, gw := serve(t, poolOf(t, nil, nodes), &limpet.Options{
		Affinity: affinity.Chain{&affinity.EngineIO{Secrets: testKeys}, &affinity.Cookie{Secrets: testKeys}},
	})
	w := watch(t, gw)
	c := newClient(t)
	sid, _ := open(t, c, srv.URL)
	ok(t, gw.MovePin(t.Context(), w.next(t).Key, ""))
	if res, _ := poll(t, c, srv.URL, sid); res.StatusCode != 400 {
		t.Errorf("the old session got %d", res.StatusCode)
	}
	sid, _ = open(t, c, srv.URL)
	if res, _ := poll(t, c, srv.URL, sid); res.StatusCode != 200 {
		t.Errorf("the new session got %d", res.StatusCode)
	}
}
