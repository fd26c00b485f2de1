package middleware_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// These are the rows of the failure table in package limpet's documentation.

// fastCheck finds a dead backend within a few hundred milliseconds.
var fastCheck = &balancer.Check{Path: "/health", Interval: 50 * time.Millisecond, Timeout: 2 * time.Second}

func sayNode(w http.ResponseWriter, r *http.Request) { io.WriteString(w, w.Header().Get("Node")) }

func TestPinnedBackendRefuses(t *testing.T) {
	t.Parallel()
	pool, nodes := cluster(t, 3, nil) // nobody checks: the refusal itself must do
	srv, _ := serve(t, pool, nil)
	c := newClient(t)
	_, home := get(t, c, srv.URL)
	nodes[home].Kill()

	// Parallel requests of one client agree on its new home. All have the old
	// pin: the jar gives the new one to those that start after the first answer.
	address, _ := url.Parse(srv.URL)
	pinned := c.Jar.Cookies(address)[0]
	var wg sync.WaitGroup
	homes := make(chan string, 10)
	for range cap(homes) {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(t.Context(), "POST", srv.URL, strings.NewReader("body"))
			req.AddCookie(pinned)
			res, err := c.Transport.RoundTrip(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != 200 || len(res.Cookies()) != 1 {
				t.Errorf("status %d, %d cookies: want an answer and a new pin", res.StatusCode, len(res.Cookies()))
			}
			c.Jar.SetCookies(address, res.Cookies())
			homes <- string(body)
		})
	}
	wg.Wait()
	close(homes)
	next := <-homes
	for h := range homes {
		if h != next || h == home {
			t.Errorf("the client of %s moved to %s and to %s", home, next, h)
		}
	}
	if res, now := get(t, c, srv.URL); now != next || len(res.Cookies()) != 0 {
		t.Errorf("later it came to %s with %d new cookies, want %s and none", now, len(res.Cookies()), next)
	}
}

func TestPinnedBackendDown(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 3, nil)
	srv, _ := serve(t, pool, nil)
	c := newClient(t)
	_, home := get(t, c, srv.URL)
	if err := pool.Off(home); err != nil {
		t.Fatal(err)
	}
	res, next := get(t, c, srv.URL)
	if next == home || len(res.Cookies()) != 1 {
		t.Errorf("moved to %s with %d cookies", next, len(res.Cookies()))
	}
	if err := pool.Undrain(home); err != nil {
		t.Fatal(err)
	}
	if _, now := get(t, c, srv.URL); now != next {
		t.Errorf("its first home is back and the client was moved again, to %s", now)
	}
}

// fatal reads one request and breaks the connection instead of answering.
func fatal(t *testing.T, hits *atomic.Int64) string {
	return rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		hits.Add(1)
		_, _ = io.Copy(io.Discard, req.Body)
		_ = conn.(*net.TCPConn).SetLinger(0)
	})
}

func TestBackendDiesBeforeItsAnswer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		method string
		body   int
		header string
		status int
	}{
		{"GET", "GET", 0, "", 200},
		{"PUT", "PUT", 1000, "", 200},
		{"PUT of more than is kept", "PUT", 1 << 20, "", 502},
		{"POST", "POST", 1000, "", 502},
		{"POST without a body", "POST", 0, "", 502},
		{"POST marked idempotent", "POST", 1000, "Idempotency-Key", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var hits atomic.Int64
			good := newNode(t, "good", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				fmt.Fprint(w, len(body))
			}))
			bad, _ := balancer.NewBackend("bad", fatal(t, &hits), 1)
			rest, _ := balancer.NewBackend("good", good.URL, 1)
			pool, err := balancer.NewPool(&balancer.Options{Picker: first{}}, bad, rest)
			if err != nil {
				t.Fatal(err)
			}
			srv, _ := serve(t, pool, nil)
			req, _ := http.NewRequestWithContext(t.Context(), tt.method, srv.URL, bytes.NewReader(make([]byte, tt.body)))
			if tt.header != "" {
				req.Header.Set(tt.header, "x")
			}
			res, err := newClient(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != tt.status || hits.Load() != 1 {
				t.Errorf("status %d after %d attempts on the dying backend, want %d", res.StatusCode, hits.Load(), tt.status)
			}
			if tt.status == 200 && string(body) != fmt.Sprint(tt.body) {
				t.Errorf("%s of %d bytes reached the second backend", body, tt.body)
			}
		})
	}
}

// first picks the first backend.
type first struct{}

func (first) Pick(_ *http.Request, from []*balancer.Backend) *balancer.Backend { return from[0] }

// A home that failed one request, but neither refuses nor is Down, keeps its client.
func TestOneFailureMovesNobody(t *testing.T) {
	t.Parallel()
	var breaks atomic.Int64
	pool, _ := cluster(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if breaks.Add(-1) >= 0 {
			panic(http.ErrAbortHandler)
		}
		sayNode(w, r)
	}))
	srv, _ := serve(t, pool, nil)
	c := newClient(t)
	_, home := get(t, c, srv.URL)
	breaks.Store(2) // on the connection that was kept, and on a fresh one
	res, other := get(t, c, srv.URL)
	if other == home || res.StatusCode != 200 {
		t.Fatalf("%d from %s, want another backend than %s", res.StatusCode, other, home)
	}
	if _, now := get(t, c, srv.URL); now != home {
		t.Errorf("the client was moved from %s to %s", home, now)
	}
}

// With GoneRefuse nobody stands in for a home that fails once.
func TestRefuseLetsNobodyStandIn(t *testing.T) {
	t.Parallel()
	var breaks atomic.Int64
	pool, _ := cluster(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if breaks.Add(-1) >= 0 {
			panic(http.ErrAbortHandler)
		}
		sayNode(w, r)
	}))
	srv, _ := serve(t, pool, &limpet.Options{Gone: limpet.GoneRefuse})
	c := newClient(t)
	_, home := get(t, c, srv.URL)
	breaks.Store(2) // on the connection that was kept, and on a fresh one
	if res, now := get(t, c, srv.URL); res.StatusCode != 502 {
		t.Errorf("%d from %s, want 502 for a client of %s", res.StatusCode, now, home)
	}
	breaks.Store(0)
	if _, now := get(t, c, srv.URL); now != home {
		t.Errorf("the client was moved from %s to %s", home, now)
	}
}

func TestBackendDiesWithinItsAnswer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, header, proto string }{
		{"length known", "Content-Length: 100\r\n", "HTTP/1.1"},
		{"chunked", "Transfer-Encoding: chunked\r\n", "HTTP/1.1"},
		{"length known, HTTP/1.0 client", "Content-Length: 100\r\n", "HTTP/1.0"},
		{"chunked, HTTP/1.0 client", "Transfer-Encoding: chunked\r\n", "HTTP/1.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
				if _, err := http.ReadRequest(r); err == nil {
					io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+tt.header+"\r\n5\r\nhello\r\n")
				}
			})
			srv, _ := serve(t, balancer.Static("a="+url), nil)
			_, r := raw(t, srv, "GET / "+tt.proto+"\nHost: x\n\n")
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				return // broken before the header went out: not whole either
			}
			if body, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("a short answer looks whole: %q", body)
			}
		})
	}
}

// A client that stops in the middle of its upload learns that nobody waits for
// the rest.
func TestStalledUpload(t *testing.T) {
	t.Parallel()
	bare := func(h http.Handler) http.Handler { return h }
	for _, tt := range []struct {
		name   string
		around func(http.Handler) http.Handler
		end    func(pool *balancer.Pool, conn net.Conn)
		status int
	}{
		{"its backend dies", bare, func(_ *balancer.Pool, conn net.Conn) { conn.Close() }, 502},
		{"its backend is lost", bare, func(pool *balancer.Pool, _ net.Conn) { _ = pool.Off("a") }, 504},
		{"its time is over", middleware.Timeout(100 * time.Millisecond), func(*balancer.Pool, net.Conn) {}, 504},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			begun := make(chan net.Conn, 1)
			pool := balancer.Static("a=" + rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				if _, err := io.ReadFull(req.Body, make([]byte, 5)); err == nil {
					begun <- conn
					_, _ = io.Copy(io.Discard, req.Body)
				}
			}))
			srv := httptest.NewServer(tt.around(newGateway(t, pool, nil)))
			t.Cleanup(srv.Close)
			_, r := raw(t, srv, "POST / HTTP/1.1\nHost: x\nContent-Length: 1000\n\nbegin")
			tt.end(pool, <-begun)
			if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != tt.status {
				t.Errorf("%v, %v; want %d", res, err, tt.status)
			}
		})
	}
}

// A backend that accepts and never answers is found by its health path; who
// waits for it goes on elsewhere.
func TestBackendHangs(t *testing.T) {
	t.Parallel()
	var hung atomic.Value
	hung.Store("")
	release := make(chan struct{})
	const polls = 20 // more than the retry budget's floor: it isn't asked
	waiting := make(chan string, polls+1)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := w.Header().Get("Node")
		if r.URL.Path == "/poll" {
			_, _ = io.Copy(io.Discard, r.Body)
			waiting <- id
			if hung.Load() == "" || hung.Load() == id {
				<-release
			}
		}
		if hung.Load() == id {
			<-release
		}
		io.WriteString(w, id)
	})
	nodes := map[string]*node{"a": newNode(t, "a", h), "b": newNode(t, "b", h), "c": newNode(t, "c", h)}
	t.Cleanup(func() { close(release) }) // before the nodes are closed, which wait for it
	check := *fastCheck
	check.Timeout = 100 * time.Millisecond
	pool := poolOf(t, &balancer.Options{Check: &check}, nodes)
	run(t, pool)
	srv, _ := serve(t, pool, nil)
	c := newClient(t)
	_, home := get(t, c, srv.URL)

	type answer struct {
		status int
		body   string
	}
	ask := func(method string) chan answer {
		got := make(chan answer, 1)
		go func() {
			req, _ := http.NewRequestWithContext(t.Context(), method, srv.URL+"/poll", strings.NewReader("x"))
			res, err := c.Do(req)
			if err != nil {
				t.Error(err)
				got <- answer{}
				return
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			got <- answer{res.StatusCode, string(body)}
		}()
		return got
	}
	var answers []chan answer
	for range polls {
		answers = append(answers, ask("GET"))
	}
	post := ask("POST")
	for range polls + 1 {
		<-waiting
	}
	hung.Store(home)
	for _, poll := range answers {
		if a := <-poll; a.status != 200 || a.body == home {
			t.Errorf("a waiting poll got %d from %q, want its new home's answer", a.status, a.body)
		}
	}
	if a := <-post; a.status != 504 {
		t.Errorf("the waiting POST got %d, want 504", a.status)
	}
}

func TestTunnelsOfALostBackend(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		lose func(pool *balancer.Pool, n *node)
	}{
		{"dies", func(_ *balancer.Pool, n *node) { n.Kill() }},
		{"goes Down", func(pool *balancer.Pool, n *node) { _ = pool.Off(n.id) }},
		{"is removed", func(pool *balancer.Pool, n *node) { _ = pool.Remove(n.id) }},
		{"drains", func(pool *balancer.Pool, n *node) { _ = pool.Drain(n.id, time.Millisecond) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool, nodes := cluster(t, 3, echo)
			srv, _ := serve(t, pool, nil)
			c := newClient(t)
			conn, res := dial(t, c, srv)
			home := res.Header.Get("Node")
			talk(t, conn)
			tt.lose(pool, nodes[home])
			_, _, err := conn.Read(t.Context())
			if websocket.CloseStatus(err) != websocket.StatusServiceRestart {
				t.Errorf("the client read %v, want close code 1012", err)
			}
			conn, res = dial(t, c, srv)
			talk(t, conn)
			if now := res.Header.Get("Node"); now == home || len(res.Cookies()) != 1 {
				t.Errorf("it came back to %s (was %s) with %d cookies", now, home, len(res.Cookies()))
			}
			_ = conn.CloseNow()
		})
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 2, nil)
	srv, _ := serve(t, pool, nil)
	c := newClient(t)
	_, home := get(t, c, srv.URL)
	if err := pool.Drain(home, 0); err != nil {
		t.Fatal(err)
	}
	if _, now := get(t, c, srv.URL); now != home {
		t.Errorf("a pinned client left a draining backend for %s at once", now)
	}
	for range 5 {
		if _, other := get(t, newClient(t), srv.URL); other == home {
			t.Errorf("a draining backend got a new client")
		}
	}
}

func TestHealthPageBroken(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" && broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		sayNode(w, r)
	})
	nodes := map[string]*node{"a": newNode(t, "a", h), "b": newNode(t, "b", h)}
	pool := poolOf(t, &balancer.Options{Check: fastCheck}, nodes)
	run(t, pool)
	srv, _ := serve(t, pool, nil)
	c := newClient(t)
	_, home := get(t, c, srv.URL)
	broken.Store(true)
	await(t, pool, "a", balancer.Draining)
	await(t, pool, "b", balancer.Draining)
	if _, now := get(t, c, srv.URL); now != home {
		t.Errorf("a broken health page moved a client from %s to %s", home, now)
	}
	if res, _ := get(t, newClient(t), srv.URL); res.StatusCode != 200 {
		t.Errorf("a new client got %d", res.StatusCode)
	}
}

func TestNoBackend(t *testing.T) {
	t.Parallel()
	empty, _ := balancer.NewPool(nil)
	// Ports that nobody listens on: that of a killed node may be another test's next.
	dead := balancer.Static("a=http://127.0.0.1:1", "b=http://127.0.0.1:2")
	for name, pool := range map[string]*balancer.Pool{"empty pool": empty, "all refuse": dead} {
		srv, _ := serve(t, pool, nil)
		res, _ := get(t, newClient(t), srv.URL)
		if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || len(res.Cookies()) != 0 {
			t.Errorf("%s: %d %v, want 503 with Retry-After and no cookie", name, res.StatusCode, res.Header)
		}
	}
}

func TestForgedCookie(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 2, nil)
	statuses := make(chan affinity.Status, 1)
	srv, gw := serve(t, pool, nil)
	gw.Observe(limpet.Observer{Request: func(rec *limpet.Record) { statuses <- rec.Pin.Status }})
	req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
	req.Header.Set("Cookie", "limpet=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	res, err := newClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if s := <-statuses; s != affinity.Forged || res.StatusCode != 200 || len(res.Cookies()) != 1 {
		t.Errorf("status %v, answer %d with %d cookies: want it forged, served and pinned anew", s, res.StatusCode, len(res.Cookies()))
	}
}

// The answer can tell what became of the pin.
func TestPinHeader(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 2, nil)
	srv, _ := serve(t, pool, &limpet.Options{PinHeader: "Limpet-Pin"})
	c := newClient(t)
	var home string
	for _, want := range []string{"new", "hit", "moved", "hit", "forged"} {
		switch want {
		case "moved":
			_ = pool.Off(home)
		case "forged":
			c = newClient(t)
			c.Transport = withHeader{"Cookie", "limpet=x"}
		}
		res, id := get(t, c, srv.URL)
		if got := res.Header.Get("Limpet-Pin"); got != want {
			t.Errorf("Limpet-Pin: %s, want %s", got, want)
		}
		home = id
	}
}

// A store that fails never fails a request.
func TestStoreGone(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 3, nil)
	srv, _ := serve(t, pool, &limpet.Options{Affinity: &affinity.Table{Key: affinity.Header("User"), Store: goneStore{}}})
	homes := make(map[string]bool)
	for range 5 {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
		req.Header.Set("User", "ann")
		res, err := newClient(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("status %d", res.StatusCode)
		}
		homes[res.Header.Get("Node")] = true
	}
	if len(homes) != 1 {
		t.Errorf("without its store one client came to %d backends", len(homes))
	}
}

type goneStore struct{}

var errGoneStore = errors.New("the store is gone")

func (goneStore) Load(context.Context, string) (string, error) { return "", errGoneStore }
func (goneStore) Swap(context.Context, string, string, string) (string, error) {
	return "", errGoneStore
}

func TestGone(t *testing.T) {
	t.Parallel()
	t.Run("refuse", func(t *testing.T) {
		t.Parallel()
		pool, nodes := cluster(t, 2, nil)
		srv, _ := serve(t, pool, &limpet.Options{Gone: limpet.GoneRefuse})
		c := newClient(t)
		_, home := get(t, c, srv.URL)
		_ = pool.Off(home)
		if res, _ := get(t, c, srv.URL); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
			t.Errorf("home Down: %d, want 503", res.StatusCode)
		}
		_ = pool.Undrain(home)
		if _, now := get(t, c, srv.URL); now != home {
			t.Errorf("home is back and the client at %s", now)
		}
		nodes[home].Kill()
		if res, _ := get(t, c, srv.URL); res.StatusCode != 503 {
			t.Errorf("home refuses: %d, want 503", res.StatusCode)
		}
		_ = pool.Remove(home)
		if res, _ := get(t, c, srv.URL); res.StatusCode != 200 {
			t.Errorf("home removed for good: %d, want a new home", res.StatusCode)
		}
	})
	t.Run("wait", func(t *testing.T) {
		t.Parallel()
		pool, _ := cluster(t, 2, nil)
		srv, _ := serve(t, pool, &limpet.Options{Gone: limpet.GoneWait, WaitFor: patience})
		c := newClient(t)
		_, home := get(t, c, srv.URL)
		_ = pool.Off(home)
		got := make(chan string)
		go func() {
			_, now := get(t, c, srv.URL)
			got <- now
		}()
		_ = pool.Undrain(home)
		if now := <-got; now != home {
			t.Errorf("the client didn't wait for %s and went to %s", home, now)
		}
	})
	t.Run("wait in vain", func(t *testing.T) {
		t.Parallel()
		pool, nodes := cluster(t, 2, nil)
		srv, _ := serve(t, pool, &limpet.Options{Gone: limpet.GoneWait, WaitFor: 200 * time.Millisecond})
		c := newClient(t)
		_, home := get(t, c, srv.URL)
		nodes[home].Kill()
		if res, now := get(t, c, srv.URL); res.StatusCode != 200 || now == home {
			t.Errorf("%d from %s", res.StatusCode, now)
		}
	})
}

// A home that was drained wants its clients to leave: nobody is refused for it,
// and nobody waits.
func TestDrainedHomeIsNotGone(t *testing.T) {
	t.Parallel()
	for name, gone := range map[string]limpet.Gone{"refuse": limpet.GoneRefuse, "wait": limpet.GoneWait} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, _ := cluster(t, 2, nil)
			srv, _ := serve(t, pool, &limpet.Options{Gone: gone, WaitFor: time.Hour})
			c := newClient(t)
			c.Timeout = patience
			_, home := get(t, c, srv.URL)
			if err := pool.Drain(home, time.Millisecond); err != nil {
				t.Fatal(err)
			}
			await(t, pool, home, balancer.Down)
			if res, now := get(t, c, srv.URL); res.StatusCode != 200 || now == home {
				t.Errorf("%d %q, want another backend than %s", res.StatusCode, now, home)
			}
		})
	}
}

// anchor is an affinity whose clients all belong to a and can't move. With a
// status it answers them itself when a is gone.
type anchor struct {
	affinity.Hash
	status int
}

func (*anchor) Find(*http.Request) (affinity.Pin, error) {
	return affinity.Pin{Backend: "a", Status: affinity.Hit, Fixed: true}, nil
}

func (a *anchor) Gone(*http.Request, affinity.Pin) *http.Response {
	if a.status == 0 {
		return nil
	}
	return &http.Response{StatusCode: a.status, Header: make(http.Header), Body: http.NoBody}
}

// A GoneHandler without an answer lets its client move, and try more than one backend.
func TestGoneHandlerWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	pool, err := balancer.NewPool(&balancer.Options{Picker: first{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range []string{"a=http://127.0.0.1:1", "b=http://127.0.0.1:2", "c=" + newNode(t, "c", nil).URL} {
		b, err := balancer.ParseBackend(spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := pool.Add(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := pool.Off("a"); err != nil {
		t.Fatal(err)
	}
	srv, _ := serve(t, pool, &limpet.Options{Affinity: &anchor{}})
	if res, now := get(t, newClient(t), srv.URL); res.StatusCode != 200 || now != "c" {
		t.Errorf("%d %q, want an answer of c", res.StatusCode, now)
	}
}

func TestGoneHandlerAnswersAWaitingPoll(t *testing.T) {
	t.Parallel()
	waiting := make(chan struct{})
	pool, _ := cluster(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		waiting <- struct{}{}
		<-r.Context().Done()
	}))
	srv, _ := serve(t, pool, &limpet.Options{Affinity: &anchor{status: 410}})
	go func() {
		<-waiting
		_ = pool.Off("a")
	}()
	c := newClient(t)
	c.Timeout = patience // b would keep it waiting
	if res, _ := get(t, c, srv.URL); res.StatusCode != 410 {
		t.Errorf("the poll got %d, want the affinity's 410", res.StatusCode)
	}
}

// A dying cluster isn't beaten to death: beyond the floor, only a share of the
// requests is sent twice.
func TestRetryBudget(t *testing.T) {
	t.Parallel()
	var hits atomic.Int64
	var nodes []*balancer.Backend
	for i := range 3 {
		b, _ := balancer.NewBackend(fmt.Sprint(i), fatal(t, &hits), 1)
		nodes = append(nodes, b)
	}
	pool, err := balancer.NewPool(nil, nodes...)
	if err != nil {
		t.Fatal(err)
	}
	gw := newGateway(t, pool, &limpet.Options{Retry: limpet.Retry{Attempts: 3, Budget: 0.1, Floor: 1}})
	const requests = 200
	begin := time.Now()
	for range requests {
		w := httptest.NewRecorder()
		gw.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code != 502 {
			t.Fatalf("status %d", w.Code)
		}
	}
	seconds := int64(time.Since(begin)/time.Second) + 2
	if most := requests + requests/10 + seconds; hits.Load() > most {
		t.Errorf("%d requests became %d attempts, want at most %d", requests, hits.Load(), most)
	}
	if hits.Load() < requests+requests/10 {
		t.Errorf("%d requests became %d attempts: the budget wasn't used", requests, hits.Load())
	}
}
