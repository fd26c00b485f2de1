package middleware_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// queueNodes returns a pool with a limit. Requests for /slow are answered when release is
// written to, and handshakes are answered at once.
func queueNodes(t *testing.T, size int, limit balancer.Limit) (pool *balancer.Pool, release chan<- bool) {
	t.Helper()
	free := make(chan bool)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/refuse":
			http.Error(w, "no", http.StatusForbidden)
		case r.Header.Get("Upgrade") != "":
			conn, err := websocket.Accept(w, r, nil)
			if err == nil {
				defer conn.CloseNow()
				_, _, _ = conn.Read(r.Context())
			}
		case r.URL.Path == "/slow":
			select {
			case <-free:
			case <-r.Context().Done():
			}
			fallthrough
		default:
			sayNode(w, r)
		}
	})
	nodes := make(map[string]*node)
	for i := range size {
		id := string(rune('a' + i))
		nodes[id] = newNode(t, id, h)
	}
	return poolOf(t, &balancer.Options{Limit: &limit}, nodes), free
}

// askFrom sends a request and tells what its answer was.
func askFrom(t *testing.T, c *http.Client, url string) <-chan string {
	t.Helper()
	done := make(chan string, 1)
	go func() {
		res, err := c.Get(url)
		if err != nil {
			done <- err.Error()
			return
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != 200 {
			body = []byte("Retry-After " + res.Header.Get("Retry-After"))
		}
		done <- fmt.Sprintf("%d %s", res.StatusCode, body)
	}()
	return done
}

// A client whose home is full waits for it, in the order in which clients came; new clients
// go elsewhere. What the queue can't hold gets 503, and observers are told why.
func TestRequestsWaitForRoom(t *testing.T) {
	t.Parallel()
	pool, release := queueNodes(t, 2, balancer.Limit{Requests: 1, Queue: 1})
	srv, gw := serve(t, pool, nil)
	ends := make(chan error, 100)
	gw.Observe(limpet.Observer{Request: func(rec *limpet.Record) { ends <- rec.Err }})
	c := newClient(t)
	_, home := get(t, c, srv.URL)
	<-ends
	b := pool.Get(home)
	slow := askFrom(t, c, srv.URL+"/slow")
	eventually(t, "the slow request", func() bool { return b.InFlight() == 1 })
	waiting := askFrom(t, c, srv.URL+"/waiting")
	eventually(t, "the next one to wait", func() bool { return b.Queued() == 1 })
	if got := <-askFrom(t, c, srv.URL); got != "503 Retry-After 1" {
		t.Errorf("the queue is full, and the next one got %s", got)
	}
	if err := <-ends; !errors.Is(err, balancer.ErrFull) || b.Refused() != 1 {
		t.Errorf("it ended with %v; %d were refused", err, b.Refused())
	}
	if _, other := get(t, newClient(t), srv.URL); other == home {
		t.Error("a new client got to the full one")
	}
	<-ends
	release <- true
	if got := <-slow; got != "200 "+home {
		t.Errorf("the slow one got %s", got)
	}
	if got := <-waiting; got != "200 "+home {
		t.Errorf("the one that has waited got %s, want 200 from its home %s", got, home)
	}
	eventually(t, "all places to be free", func() bool { return b.InFlight() == 0 && b.Queued() == 0 })
}

// A tunnel has the place of a tunnel from its handshake to its end. A handshake that is
// refused, and one that fails, give theirs back.
func TestTunnelsHaveRoomOfTheirOwn(t *testing.T) {
	t.Parallel()
	for name, mount := range map[string]func(*testing.T, *balancer.Pool) *httptest.Server{
		"gateway": func(t *testing.T, pool *balancer.Pool) *httptest.Server {
			srv, _ := serve(t, pool, nil)
			return srv
		},
		"sticky": func(t *testing.T, pool *balancer.Pool) *httptest.Server {
			srv := httptest.NewServer(&httputil.ReverseProxy{
				Rewrite:   func(r *httputil.ProxyRequest) { r.SetXForwarded() },
				Transport: &limpet.Sticky{Pool: pool, Affinity: &affinity.Cookie{Secrets: testKeys}, Logger: slog.New(slog.DiscardHandler)},
				ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
					w.WriteHeader(limpet.StatusCode(err))
				},
			})
			t.Cleanup(srv.Close)
			return srv
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, _ := queueNodes(t, 2, balancer.Limit{Requests: 1, Tunnels: 1, Queue: -1})
			srv := mount(t, pool)
			c := newClient(t)
			handshake := func(c *http.Client, path string) (*websocket.Conn, int) {
				t.Helper()
				conn, res, _ := websocket.Dial(t.Context(), srv.URL+path, &websocket.DialOptions{HTTPClient: c})
				if res == nil {
					t.Fatal("no answer")
				}
				return conn, res.StatusCode
			}
			for range 5 {
				if _, code := handshake(c, "/refuse"); code != http.StatusForbidden {
					t.Fatalf("status %d", code)
				}
			}
			first, code := handshake(c, "/")
			if code != 101 {
				t.Fatalf("status %d", code)
			}
			_, home := get(t, c, srv.URL) // a tunnel doesn't take the place of a request
			if conn, code := handshake(c, "/"); code != 503 || conn != nil {
				t.Errorf("the home has no room, and the answer is %d", code)
			}
			second, code := handshake(newClient(t), "/")
			if code != 101 {
				t.Errorf("a new client got %d", code)
			}
			if code == 101 {
				defer second.CloseNow()
			}
			if _, code := handshake(newClient(t), "/"); code != 503 {
				t.Errorf("none has room, and a new client got %d", code)
			}
			first.CloseNow()
			eventually(t, "room at the home", func() bool { return pool.Get(home).InFlight() == 0 })
			third, code := handshake(c, "/")
			if code != 101 {
				t.Fatalf("status %d", code)
			}
			third.CloseNow()
		})
	}
}

// The session of a node that is lost is told so, also if its request waits for room there.
func TestSessionIsLostWhileItWaits(t *testing.T) {
	t.Parallel()
	nodes, _ := engines(t, 2)
	pool := poolOf(t, &balancer.Options{Limit: &balancer.Limit{Requests: 1}}, nodes)
	srv, _ := serve(t, pool, &limpet.Options{Affinity: engineIO()})
	sid, home := open(t, newClient(t), srv.URL)
	b := pool.Get(home)
	eventually(t, "the first answer's end", func() bool { return b.InFlight() == 0 })
	b.Begin()
	waiting := make(chan string, 1)
	go func() {
		res, body := poll(t, newClient(t), srv.URL, sid)
		waiting <- fmt.Sprint(res.StatusCode, " ", body)
	}()
	eventually(t, "the poll to wait", func() bool { return b.Queued() == 1 })
	if err := pool.Off(home); err != nil {
		t.Fatal(err)
	}
	if got := <-waiting; got != `400 {"code":1,"message":"Session ID unknown"}` {
		t.Errorf("the poll got %s", got)
	}
	b.End()
}

// A client that leaves its place in the queue doesn't get to a backend.
func TestClientLeavesTheQueue(t *testing.T) {
	t.Parallel()
	pool, _ := queueNodes(t, 1, balancer.Limit{Requests: 1, Wait: time.Hour})
	srv, _ := serve(t, pool, nil)
	a := pool.Get("a")
	a.Begin()
	conn, _ := raw(t, srv, "GET / HTTP/1.1\nHost: x\n\n")
	eventually(t, "it to wait", func() bool { return a.Queued() == 1 })
	conn.Close()
	eventually(t, "it to leave", func() bool { return a.Queued() == 0 })
	a.End()
	if a.InFlight() != 0 {
		t.Errorf("%d in flight", a.InFlight())
	}
}

// A client's cookie keeps it in its group when its backend goes, for good.
func TestClientsStickToTheirGroup(t *testing.T) {
	t.Parallel()
	specs := make([]string, 4)
	for i := range specs {
		id := string(rune('a' + i))
		specs[i] = fmt.Sprintf("%s=%s,group=%s", id, newNode(t, id, nil).URL, []string{"stable", "canary"}[i%2])
	}
	pool, err := balancer.ParsePool(nil, specs...)
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.SetShares(map[string]int{"stable": 1000, "canary": 1}); err != nil {
		t.Fatal(err)
	}
	srv, _ := serve(t, pool, nil)
	if err := pool.SetShares(map[string]int{"canary": 1}); err != nil {
		t.Fatal(err)
	}
	c := newClient(t)
	_, home := get(t, c, srv.URL)
	if pool.Get(home).Group() != "canary" {
		t.Fatalf("a new client got to %s", home)
	}
	if err := pool.SetShares(map[string]int{"stable": 1}); err != nil { // back to none
		t.Fatal(err)
	}
	if err := pool.Remove(home); err != nil {
		t.Fatal(err)
	}
	other := map[string]string{"b": "d", "d": "b"}[home]
	for range 3 {
		if _, at := get(t, c, srv.URL); at != other {
			t.Errorf("the canary's client is at %s, want %s", at, other)
		}
	}
	if err := pool.Off(other); err != nil {
		t.Fatal(err)
	}
	_, at := get(t, c, srv.URL)
	if err := pool.Undrain(other); err != nil {
		t.Fatal(err)
	}
	if _, again := get(t, c, srv.URL); pool.Get(at).Group() != "stable" || again != at {
		t.Errorf("after the rollback it is at %s, then at %s", at, again)
	}
}
