package middleware_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// A pollNode is a node with one session. A poll of the session waits until the
// session is ended.
type pollNode struct {
	polled chan struct{} // a poll has begun to wait
	posted chan *http.Request
	bodies chan string
	accept func(*http.Request) // called before a POST is answered; nil: nothing

	mu    sync.Mutex
	ended chan struct{}
	over  bool
}

func newPollNode() *pollNode {
	return &pollNode{polled: make(chan struct{}, 100), posted: make(chan *http.Request, 100), bodies: make(chan string, 100), ended: make(chan struct{})}
}

func (n *pollNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch {
	case q.Get("sid") == "" && q.Get("EIO") == "3":
		io.WriteString(w, `15:0{"sid":"secret"}`)
	case q.Get("sid") == "":
		io.WriteString(w, `0{"sid":"secret"}`)
	case r.Method == "POST":
		body, _ := io.ReadAll(r.Body)
		n.posted <- r
		if n.accept != nil {
			n.accept(r)
		}
		n.bodies <- string(body)
		if !strings.Contains(string(body), "4") { // a message
			n.mu.Lock()
			if !n.over {
				close(n.ended)
			}
			n.over = true
			n.mu.Unlock()
		}
		io.WriteString(w, "ok")
	default:
		n.polled <- struct{}{}
		select {
		case <-n.ended:
			io.WriteString(w, "6")
		case <-r.Context().Done():
		}
	}
}

// told returns the next POST and its body.
func (n *pollNode) told(t *testing.T) (*http.Request, string) {
	t.Helper()
	select {
	case body := <-n.bodies:
		return <-n.posted, body
	case <-time.After(patience):
		t.Fatal("the node wasn't told anything")
		return nil, ""
	}
}

// A pollClient has a session that polls.
type pollClient struct {
	*http.Client
	base, query string
	header      http.Header
}

func (c *pollClient) do(t *testing.T, method, sid, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, c.base+"/socket.io/?"+c.query+sid, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = c.header.Clone()
	res, err := c.Do(r)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

// open opens the session and returns the parameter that names it.
func (c *pollClient) open(t *testing.T) string {
	t.Helper()
	_, answer := c.do(t, "GET", "", "")
	_, sid, _ := strings.Cut(answer, `"sid":"`)
	sid, _, _ = strings.Cut(sid, `"`)
	if sid == "" {
		t.Fatalf("opened with %q", answer)
	}
	return "&sid=" + sid
}

// The node of a session is told that the session is over when its client's turn in a drain
// comes, or when the client is moved or closed: once, in the form that the session speaks,
// with the client's own fields. The node answers the poll that waits, and the next one is
// answered by the gateway.
func TestNodeIsToldThatASessionEnds(t *testing.T) {
	t.Parallel()
	const form, text = "application/x-www-form-urlencoded", "text/plain;charset=UTF-8"
	forms := []struct{ name, query, body, contentType string }{
		{"version 4", "EIO=4&transport=polling&t=x", "1", text},
		{"version 3", "EIO=3&transport=polling", "1:1", text},
		{"version 3, base64", "EIO=3&transport=polling&b64=1", "1:1", text},
		{"version 4, JSONP", "EIO=4&transport=polling&j=0", "d=1", form},
		{"version 3, JSONP", "EIO=3&transport=polling&j=12", "d=1%3A1", form},
	}
	ways := []struct {
		name string
		end  func(t *testing.T, gw *limpet.Gateway, key string) error
		gone bool // the gateway answers the next poll
	}{
		{"drain", func(t *testing.T, gw *limpet.Gateway, key string) error {
			begun := time.Duration(balancer.Turn(key)*float64(time.Hour)) - 30*time.Millisecond
			return gw.Pool().SetWish("a", balancer.Wish{State: balancer.Draining, Within: time.Hour, Since: time.Now().Add(-begun)})
		}, true},
		{"off", func(t *testing.T, gw *limpet.Gateway, _ string) error { return gw.Pool().Off("a") }, true},
		{"move", func(t *testing.T, gw *limpet.Gateway, key string) error {
			return gw.MovePin(t.Context(), key, "b")
		}, true},
		{"close", func(t *testing.T, gw *limpet.Gateway, key string) error {
			return gw.CloseSession(t.Context(), key, 1000, "")
		}, false},
	}
	for _, way := range ways {
		for _, f := range forms {
			t.Run(way.name+", "+f.name, func(t *testing.T) {
				t.Parallel()
				a, b := newPollNode(), newPollNode()
				pool := poolOf(t, nil, map[string]*node{"a": newNode(t, "a", a), "b": newNode(t, "b", b)})
				if err := pool.SetWish("b", balancer.Wish{State: balancer.Draining}); err != nil {
					t.Fatal(err)
				}
				srv, gw := serve(t, pool, &limpet.Options{Affinity: affinity.Chain{engineIO(), &affinity.Cookie{Secrets: testKeys}}})
				w := watch(t, gw)
				c := &pollClient{newClient(t), srv.URL, f.query, http.Header{"Authorization": {"me"}, "Cookie": {"app=1"}}}
				sid := c.open(t)
				key := w.next(t).Key
				if err := pool.Undrain("b"); err != nil {
					t.Fatal(err)
				}
				var waiting sync.WaitGroup
				waiting.Go(func() {
					status, answer := c.do(t, "GET", sid, "")
					if way.name == "off" {
						if status != 400 {
							t.Errorf("the poll that waited got %d %q", status, answer)
						}
					} else if status != 200 || answer != "6" {
						t.Errorf("the poll that waited got %d %q", status, answer)
					}
				})
				<-a.polled
				if err := way.end(t, gw, key); err != nil {
					t.Fatal(err)
				}
				waiting.Wait()
				r, body := a.told(t)
				if body != f.body || r.Header.Get("Content-Type") != f.contentType || r.URL.Path != "/socket.io/" {
					t.Errorf("the node got %s with %q as %q", r.URL.Path, body, r.Header.Get("Content-Type"))
				}
				if got := r.URL.RawQuery; got != f.query+"&sid=secret" {
					t.Errorf("query %q", got)
				}
				if r.Header.Get("Authorization") != "me" || r.Header.Get("X-Forwarded-For") == "" || !strings.HasPrefix(r.Header.Get("Cookie"), "app=1") {
					t.Errorf("header %v", r.Header)
				}
				if way.gone {
					if status, answer := c.do(t, "GET", sid, ""); status != 400 || !strings.Contains(answer, "Session ID unknown") {
						t.Errorf("the next poll got %d %q", status, answer)
					}
				}
				if len(a.posted) > 0 || len(b.posted) > 0 || len(b.polled) > 0 {
					t.Error("a node was told twice, or the other one was")
				}
			})
		}
	}
}

// A client that doesn't poll when its turn comes is told by its next request, and its node
// is told before that is answered. Requests at the same time cause one message.
func TestNodeIsToldByTheNextRequest(t *testing.T) {
	t.Parallel()
	a := newPollNode()
	pool := poolOf(t, nil, map[string]*node{"a": newNode(t, "a", a), "b": newNode(t, "b", newPollNode())})
	if err := pool.Drain("b", 0); err != nil {
		t.Fatal(err)
	}
	srv, _ := serve(t, pool, &limpet.Options{Affinity: engineIO()})
	c := &pollClient{newClient(t), srv.URL, "EIO=4&transport=polling", nil}
	sid := c.open(t)
	if err := pool.SetWish("a", balancer.Wish{State: balancer.Draining, Within: time.Hour, Since: time.Now().Add(-time.Hour + time.Second)}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			status, answer := c.do(t, []string{"GET", "POST"}[i%2], sid, "4hello")
			if status != 400 || len(a.bodies) != 1 {
				t.Errorf("%d %q, when the node was told %d times", status, answer, len(a.bodies))
			}
		})
	}
	all.Wait()
	if _, body := a.told(t); body != "1" || len(a.posted) > 0 {
		t.Errorf("told %q, and %d more", body, len(a.posted))
	}
}

// Data that the client is sending arrives before the node is told: Engine.IO would refuse
// the second of two requests with data, and drop what the first one has.
func TestNodeIsToldBehindTheClientsData(t *testing.T) {
	t.Parallel()
	a := newPollNode()
	arrived, goOn := make(chan struct{}), make(chan struct{})
	a.accept = func(r *http.Request) {
		if r.ContentLength > 1 {
			close(arrived)
			<-goOn
		}
	}
	srv, gw := serve(t, poolOf(t, nil, map[string]*node{"a": newNode(t, "a", a)}), &limpet.Options{Affinity: engineIO()})
	w := watch(t, gw)
	c := &pollClient{newClient(t), srv.URL, "EIO=4&transport=polling", nil}
	sid := c.open(t)
	key := w.next(t).Key
	var all sync.WaitGroup
	all.Go(func() { c.do(t, "GET", sid, "") })
	all.Go(func() {
		if status, answer := c.do(t, "POST", sid, "4hello"); status != 200 || answer != "ok" {
			t.Errorf("data got %d %q", status, answer)
		}
	})
	<-a.polled
	<-arrived
	if err := gw.CloseSession(t.Context(), key, 1000, ""); err != nil {
		t.Fatal(err)
	}
	<-a.posted
	select {
	case <-a.posted:
		t.Error("the node was told while data arrived")
	case <-time.After(50 * time.Millisecond): // it would have come at once
	}
	close(goOn)
	all.Wait()
	var got []string
	for range 2 {
		select {
		case body := <-a.bodies:
			got = append(got, body)
		case <-time.After(patience):
			t.Fatalf("the node got only %q", got)
		}
	}
	if !slices.Equal(got, []string{"4hello", "1"}) {
		t.Errorf("the node got %q", got)
	}
}

// A node that doesn't answer holds its clients up for a moment only, and one that refuses
// the message changes nothing.
func TestNodeThatCannotBeTold(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	a := newPollNode()
	a.accept = func(*http.Request) { <-release }
	pool := poolOf(t, nil, map[string]*node{"a": newNode(t, "a", a)})
	srv, gw := serve(t, pool, &limpet.Options{Affinity: engineIO()})
	w := watch(t, gw)
	c := &pollClient{newClient(t), srv.URL, "EIO=4&transport=polling", nil}
	sid := c.open(t)
	if err := gw.MovePin(t.Context(), w.next(t).Key, ""); err != nil {
		t.Fatal(err)
	}
	if status, answer := c.do(t, "GET", sid, ""); status != 400 || !strings.Contains(answer, "unknown") {
		t.Errorf("%d %q", status, answer)
	}
}

// Turns of a drain are kept: no session ends before its client's, and all have by the end of
// the drain.
func TestPollsLeaveInTurn(t *testing.T) {
	t.Parallel()
	const within = 2 * time.Second
	for _, tt := range []struct {
		name  string
		start func(t *testing.T, pool *balancer.Pool) (drain func())
	}{
		{"the operator drains", func(t *testing.T, pool *balancer.Pool) func() {
			return func() { ok(t, pool.Drain("a", within)) }
		}},
		{"a source drains", func(t *testing.T, pool *balancer.Pool) func() {
			target := balancer.Target{ID: "a", URL: pool.Get("a").URL().String(), Within: within}
			ok(t, pool.Remove("a"))
			source := follow(t, pool)
			added := make(chan struct{})
			stop := pool.OnChange(func(balancer.Change) { close(added) })
			source <- []balancer.Target{target}
			<-added
			stop()
			return func() {
				target.Draining = true
				source <- []balancer.Target{target}
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			sids := make(map[string]chan struct{})
			untold := 0
			a := newNode(t, "a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				sid := r.URL.Query().Get("sid")
				mu.Lock()
				defer mu.Unlock()
				if sid == "" {
					sid = fmt.Sprint("sid", len(sids))
					sids[sid] = make(chan struct{})
					fmt.Fprintf(w, `0{"sid":%q}`, sid)
					return
				}
				ended := sids[sid]
				if r.Method == "POST" {
					close(ended)
					return
				}
				mu.Unlock()
				defer mu.Lock()
				select {
				case <-ended:
				case <-r.Context().Done(): // the drain is over
					mu.Lock()
					untold++
					mu.Unlock()
				}
			}))
			pool := poolOf(t, nil, map[string]*node{"a": a})
			drain := tt.start(t, pool)
			srv, gw := serve(t, pool, &limpet.Options{Affinity: engineIO()})
			w := watch(t, gw)
			c := &pollClient{newClient(t), srv.URL, "EIO=4&transport=polling", nil}
			type session struct {
				sid  string
				turn time.Duration
			}
			var all []session
			for range 20 {
				sid := c.open(t)
				all = append(all, session{sid, time.Duration(balancer.Turn(w.next(t).Key) * float64(within))})
			}
			var done sync.WaitGroup
			began := time.Now()
			drain()
			for _, s := range all {
				done.Go(func() {
					c.do(t, "GET", s.sid, "")
					if after := time.Since(began); after < s.turn {
						t.Errorf("left after %v, before its turn at %v", after, s.turn)
					}
				})
			}
			done.Wait()
			mu.Lock()
			defer mu.Unlock()
			if untold > len(all)/2 { // those with the last turns may be too late on a busy machine
				t.Errorf("%d of %d sessions were not ended before the end of the drain", untold, len(all))
			}
		})
	}
}

// A node that its source drains is told of its polling sessions within the drain, as one that
// the operator drains is.
func TestPollsLeaveASourcesDrain(t *testing.T) {
	t.Parallel()
	n := newPollNode()
	a := newNode(t, "a", n)
	pool := poolOf(t, nil, nil)
	srv, _ := serve(t, pool, &limpet.Options{Affinity: engineIO()})
	added := make(chan struct{}, 1)
	defer pool.OnChange(func(c balancer.Change) {
		if c.From == balancer.Down {
			added <- struct{}{}
		}
	})()
	source := follow(t, pool)
	target := balancer.Target{ID: "a", URL: a.URL, Within: time.Second}
	source <- []balancer.Target{target}
	<-added
	c := &pollClient{newClient(t), srv.URL, "EIO=4&transport=polling", nil}
	sid := c.open(t)
	answered := make(chan string, 1)
	go func() {
		_, text := c.do(t, "GET", sid, "")
		answered <- text
	}()
	<-n.polled
	target.Draining = true
	source <- []balancer.Target{target}
	if text := <-answered; text != "6" {
		t.Errorf("the poll was answered %q, want the node's own answer", text)
	}
	n.told(t)
}

// The gateway's own answer to a session whose node is gone passes through ModifyResponse,
// and leaves the fields alone that middlewares in front have set.
func TestGoneAnswerObeysTheEmbedder(t *testing.T) {
	t.Parallel()
	const site = "https://app.example"
	a := newPollNode()
	pool := poolOf(t, nil, map[string]*node{"a": newNode(t, "a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		a.ServeHTTP(w, r)
	}))})
	gw := newGateway(t, pool, &limpet.Options{Affinity: engineIO(), ModifyResponse: func(res *http.Response) error {
		if b := balancer.BackendFromContext(res.Request.Context()); b != nil != (res.StatusCode == 200) {
			t.Errorf("status %d of %v", res.StatusCode, b)
		}
		res.Header.Set("Modified", "yes")
		return nil
	}})
	plain := httptest.NewServer(gw)
	t.Cleanup(plain.Close)
	for _, set := range []http.Header{
		{},
		{"Access-Control-Allow-Origin": {site}, "Vary": {"Origin"}},
		{"Vary": {"Accept-Encoding"}}, // as one that compresses does: the answer depends on the Origin, too
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			maps.Copy(w.Header(), set.Clone())
			gw.ServeHTTP(w, r)
		}))
		t.Cleanup(srv.Close)
		c := &pollClient{newClient(t), plain.URL, "EIO=4&transport=polling", http.Header{"Origin": {site}}}
		if err := pool.Undrain("a"); err != nil {
			t.Fatal(err)
		}
		sid := c.open(t)
		if err := pool.Off("a"); err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/socket.io/?"+c.query+sid, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = c.header
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		for name, want := range map[string]string{"Access-Control-Allow-Origin": site, "Access-Control-Allow-Credentials": "true", "Vary": "Origin", "Modified": "yes"} {
			if got := slices.DeleteFunc(res.Header.Values(name), func(v string) bool { return v == "Accept-Encoding" }); len(got) != 1 || got[0] != want {
				t.Errorf("with a middleware that sets %v: %s: %q", set, name, got)
			}
		}
	}
}
