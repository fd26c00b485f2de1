package middleware_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// engine is a backend that speaks as much Engine.IO 4 as it takes to be sticky,
// by polling. Each node has its own, so none knows the sessions of another.
type engine struct {
	aborts atomic.Int64 // how many handshakes break off

	mu       sync.Mutex
	sessions map[string]bool
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	sid := r.URL.Query().Get("sid")
	switch {
	case r.URL.Query().Get("transport") == "websocket" && r.Header.Get("Upgrade") == "":
		w.WriteHeader(400)
		io.WriteString(w, `{"code":3,"message":"Bad request"}`)
	case sid == "" && e.aborts.Add(-1) >= 0:
		panic(http.ErrAbortHandler)
	case sid == "":
		if e.sessions == nil {
			e.sessions = make(map[string]bool)
		}
		sid = fmt.Sprint("sid-", len(e.sessions))
		e.sessions[sid] = true
		fmt.Fprintf(w, `0{"sid":%q,"upgrades":["websocket"]}`, sid)
	case e.sessions[sid]:
		io.WriteString(w, r.RequestURI)
	default:
		w.WriteHeader(400)
		io.WriteString(w, `{"code":1,"message":"Session ID unknown"}`)
	}
}

// engines starts nodes a, b, c…, each with an engine.
func engines(t *testing.T, size int) (map[string]*node, map[string]*engine) {
	nodes, engines := make(map[string]*node), make(map[string]*engine)
	for i := range size {
		id := string(rune('a' + i))
		engines[id] = &engine{}
		nodes[id] = newNode(t, id, engines[id])
	}
	return nodes, engines
}

// open opens a session and returns its sid and its node.
func open(t *testing.T, c *http.Client, url string) (sid, node string) {
	t.Helper()
	res, body := get(t, c, url+"/socket.io/?EIO=4&transport=polling")
	var opened struct{ Sid string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(body, "0")), &opened); err != nil || opened.Sid == "" {
		t.Fatalf("a session was opened with %d %q: %v", res.StatusCode, body, err)
	}
	return opened.Sid, res.Header.Get("Node")
}

func poll(t *testing.T, c *http.Client, url, sid string) (res *http.Response, body string) {
	t.Helper()
	return get(t, c, url+"/socket.io/?EIO=4&transport=polling&sid="+sid)
}

func engineIO() *affinity.EngineIO { return &affinity.EngineIO{Secrets: testKeys} }

// Clients without cookies, each request of whom takes another of two replicas.
func TestSessionsStayBehindTwoReplicas(t *testing.T) {
	t.Parallel()
	nodes, _ := engines(t, 3)
	var urls [2]string
	for i := range urls {
		srv, _ := serve(t, poolOf(t, nil, nodes), &limpet.Options{Affinity: engineIO()})
		urls[i] = srv.URL
	}
	c := &http.Client{Transport: newClient(t).Transport}
	for range 6 {
		sid, node := open(t, c, urls[0])
		for i := range 4 {
			if res, _ := poll(t, c, urls[i%2], sid); res.StatusCode != 200 || res.Header.Get("Node") != node {
				t.Errorf("session of %s: %d from %q", node, res.StatusCode, res.Header.Get("Node"))
			}
		}
	}
}

// Nothing of the request target changes but the sid.
func TestSessionsReachTheirNodeAsWritten(t *testing.T) {
	t.Parallel()
	nodes, _ := engines(t, 1)
	srv, _ := serve(t, poolOf(t, nil, nodes), &limpet.Options{Affinity: engineIO()})
	sid, _ := open(t, newClient(t), srv.URL)
	_, r := raw(t, srv, `GET /a|b/%7e?x="|;y&EIO=4&sid=`+sid+"&%zz HTTP/1.1\nHost: h\n\n")
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); string(body) != `/a|b/%7e?x="|;y&EIO=4&sid=sid-0&%zz` {
		t.Errorf("the node saw %q", body)
	}
}

// The gateway itself tells a client that its session is gone: nobody else knows.
func TestSessionOfALostNode(t *testing.T) {
	t.Parallel()
	nodes, _ := engines(t, 2)
	for _, how := range []string{"off", "removed"} {
		pool := poolOf(t, nil, nodes)
		srv, _ := serve(t, pool, &limpet.Options{Affinity: engineIO()})
		c := newClient(t)
		sid, home := open(t, c, srv.URL)
		act := pool.Off
		if how == "removed" {
			act = pool.Remove
		}
		if err := act(home); err != nil {
			t.Fatal(err)
		}
		res, body := poll(t, c, srv.URL, sid)
		if res.StatusCode != 400 || body != `{"code":1,"message":"Session ID unknown"}` || res.Header.Get("Node") != "" ||
			res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %q %v", how, res.StatusCode, body, res.Header)
		}
	}
}

// A poll that waits while its node dies gets the answer of Engine.IO, and no error: health
// has found the node gone by the time that it answers. If the node is well, the failure was
// that of a single request, and the session goes on.
func TestWaitingPollOfALostNode(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"dies": 400, "closes a connection": 502} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, engines := engines(t, 2)
			nodes := make(map[string]*node)
			waits := make(chan struct{}, 10)
			for id, e := range engines {
				nodes[id] = newNode(t, id, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !r.URL.Query().Has("sid") {
						e.ServeHTTP(w, r)
						return
					}
					waits <- struct{}{}
					if want == 502 {
						panic(http.ErrAbortHandler)
					}
					<-r.Context().Done()
				}))
			}
			pool := poolOf(t, nil, nodes)
			run(t, pool)
			srv, gw := serve(t, pool, &limpet.Options{Affinity: engineIO(), Retry: limpet.Retry{Attempts: 1}})
			w := watch(t, gw)
			c := newClient(t)
			sid, home := open(t, c, srv.URL)
			w.next(t)
			go func() {
				<-waits
				if want == 400 {
					nodes[home].Kill()
				}
			}()
			res, body := poll(t, c, srv.URL, sid)
			if res.StatusCode != want || want == 400 && body != `{"code":1,"message":"Session ID unknown"}` {
				t.Errorf("%d %q, want %d", res.StatusCode, body, want)
			}
			if rec := w.next(t); want == 400 && (rec.Source != limpet.SourceAffinity || len(rec.Attempts) != 1) {
				t.Errorf("%d of the %v after %d attempts", rec.Status, rec.Source, len(rec.Attempts))
			}
		})
	}
}

// A node that is drained keeps its sessions until their moments come, and gets no
// new ones.
func TestSessionsOfADrainedNode(t *testing.T) {
	t.Parallel()
	nodes, _ := engines(t, 2)
	pool := poolOf(t, nil, nodes)
	srv, _ := serve(t, pool, &limpet.Options{Affinity: engineIO()})
	c := newClient(t)
	sid, home := open(t, c, srv.URL)
	if err := pool.Drain(home, time.Hour); err != nil {
		t.Fatal(err)
	}
	if res, _ := poll(t, c, srv.URL, sid); res.StatusCode != 200 || res.Header.Get("Node") != home {
		t.Errorf("%d from %q, want %s", res.StatusCode, res.Header.Get("Node"), home)
	}
	for range 4 {
		if _, other := open(t, c, srv.URL); other == home {
			t.Error("a drained node got a new session")
		}
	}
	if err := pool.SetWish(home, balancer.Wish{State: balancer.Draining, Within: time.Nanosecond}); err != nil {
		t.Fatal(err)
	}
	if res, _ := poll(t, c, srv.URL, sid); res.StatusCode != 400 || res.Header.Get("Node") != "" {
		t.Errorf("%d from %q after the drain, want the gateway's own 400", res.StatusCode, res.Header.Get("Node"))
	}
}

// A mere failed dial doesn't end a session.
func TestSessionOutlivesARefusedDial(t *testing.T) {
	t.Parallel()
	nodes, _ := engines(t, 2)
	srv, _ := serve(t, poolOf(t, nil, nodes), &limpet.Options{Affinity: engineIO()})
	c := newClient(t)
	sid, home := open(t, c, srv.URL)
	nodes[home].Kill()
	if res, body := poll(t, c, srv.URL, sid); res.StatusCode != 502 {
		t.Errorf("%d %q, want 502 until the node is found Down", res.StatusCode, body)
	}
}

// A client keeps its home when another node answers in its place, and the
// session that the other one has begun is there.
func TestSessionBegunByAStandIn(t *testing.T) {
	t.Parallel()
	nodes, engines := engines(t, 2)
	srv, _ := serve(t, poolOf(t, nil, nodes), &limpet.Options{
		Affinity: affinity.Chain{engineIO(), &affinity.Cookie{Secrets: testKeys}},
	})
	c := newClient(t)
	first, home := open(t, c, srv.URL)
	engines[home].aborts.Store(2) // on the connection that was kept, and on a fresh one
	second, other := open(t, c, srv.URL)
	if other == home {
		t.Fatal("nobody stood in")
	}
	for sid, node := range map[string]string{first: home, second: other} {
		if res, _ := poll(t, c, srv.URL, sid); res.StatusCode != 200 || res.Header.Get("Node") != node {
			t.Errorf("session of %s: %d from %q", node, res.StatusCode, res.Header.Get("Node"))
		}
	}
}

// A request of a session whose node is lost at that moment goes to no other node.
func TestSessionNeverStrays(t *testing.T) {
	t.Parallel()
	nodes, _ := engines(t, 2)
	pool := poolOf(t, nil, nodes)
	srv, gw := serve(t, pool, &limpet.Options{Affinity: engineIO(), Logger: slog.New(slog.DiscardHandler)})
	sid, home := open(t, newClient(t), srv.URL)
	ctx, stop := context.WithCancel(t.Context())
	var flaps sync.WaitGroup
	defer flaps.Wait()
	defer stop()
	flaps.Go(func() {
		for ctx.Err() == nil {
			ok(t, pool.Off(home))
			ok(t, pool.Undrain(home))
		}
	})
	for range 3000 {
		rec := httptest.NewRecorder()
		gw.ServeHTTP(rec, httptest.NewRequestWithContext(ctx, "GET", "/socket.io/?EIO=4&transport=polling&sid="+sid, nil))
		if node := rec.Header().Get("Node"); node != "" && node != home {
			t.Fatalf("a request of the session at %s came to %s", home, node)
		}
	}
}
