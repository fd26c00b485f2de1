package status_test

import (
	"context"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/metrics"
	"github.com/limpet-go/limpet/middleware/status"
)

// seen is what the clients of a test have counted.
type seen struct {
	sent, answered, refused, broken atomic.Int64 // requests: all, answered by a node, by the gateway, and without an answer
	opened, closed                  atomic.Int64 // WebSockets
}

// visit sends some requests as one client, and holds WebSockets.
func (s *seen) visit(t *testing.T, url string) {
	c := newClient(t)
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for range 6 {
		switch rand.IntN(10) {
		case 0, 1, 2:
			s.socket(t, c, url)
		case 3, 4:
			s.request(t.Context(), c, "POST", url, strings.NewReader(strings.Repeat("x", rand.IntN(20_000))))
		case 5: // gives up, mostly before the answer
			ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*time.Millisecond))
			s.request(ctx, c, "GET", url+"/slow", nil)
			cancel()
		default:
			s.request(t.Context(), c, "GET", url, nil)
		}
	}
}

func (s *seen) request(ctx context.Context, c *http.Client, method, url string, body io.Reader) {
	req, _ := http.NewRequestWithContext(ctx, method, url, body)
	s.sent.Add(1)
	res, err := c.Do(req)
	if err != nil {
		s.broken.Add(1)
		return
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	s.came(res)
}

// came counts an answer by who has given it.
func (s *seen) came(res *http.Response) {
	if res.Header.Get("Node") != "" {
		s.answered.Add(1)
	} else {
		s.refused.Add(1)
	}
}

func (s *seen) socket(t *testing.T, c *http.Client, url string) {
	s.sent.Add(1)
	conn, res, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPClient: c})
	switch {
	case res == nil:
		s.broken.Add(1)
		return
	case err != nil:
		s.came(res)
		return
	}
	s.came(res)
	s.opened.Add(1)
	defer s.closed.Add(1)
	defer conn.CloseNow()
	for range rand.IntN(20) {
		if conn.Write(t.Context(), websocket.MessageText, []byte("hello")) != nil {
			return
		}
		if _, _, err := conn.Read(t.Context()); err != nil {
			return
		}
	}
	if rand.IntN(2) == 0 {
		conn.Close(websocket.StatusNormalClosure, "")
	}
}

// With 300 clients, a crash, drains and an outage: each request is in exactly one of the sums,
// and the sums are those of the clients and of the metrics.
func TestSumsAddUp(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a b c d", &status.Options{Authorize: everybody}, nil)
	counted := metrics.Handler(g.gateway, nil)
	g.check()
	var all atomic.Int64 // requests that have reached the gateway
	done := make(chan struct{})
	front := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all.Add(1)
		g.gateway.ServeHTTP(w, r)
	})
	srv := newServer(t, front)

	var s seen
	var clients sync.WaitGroup
	gate := make(chan struct{}, 40) // at the same time
	for range 300 {
		clients.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			s.visit(t, srv.URL)
		})
	}
	go func() {
		clients.Wait()
		close(done)
	}()
	faults := []func(){
		func() { g.steer("backends/a/drain", `{"within":"50ms"}`) },
		func() { g.nodes["b"].Kill() },
		func() { g.steer("backends/a/undrain", "") },
		func() { g.steer("backends/c/off", "") },
		func() { g.steer("backends/d/weight", `{"weight":9}`) },
		func() { g.steer("backends/c/undrain", "") },
		func() { _ = g.pool.Off("a"); _ = g.pool.Off("c"); _ = g.pool.Off("d") }, // nobody is left
		func() { _ = g.pool.Undrain("a"); _ = g.pool.Undrain("d") },
	}
	step := max(1, int64(300*6/(len(faults)+1)))
	for i, fault := range faults {
		for all.Load() < int64(i+1)*step && !isDone(done) { // however slow the machine is
			time.Sleep(time.Millisecond)
		}
		fault()
		if v := g.state(""); sum(v) != v.Totals["requests"] {
			t.Errorf("while it goes on: %+v", v.Totals)
		}
	}
	<-done
	srv.Close() // all handlers have returned
	eventually(t, "the end of all tunnels", func() bool { return g.state("").Tunnels == 0 })

	v := g.state("?history=1")
	if v.Totals["requests"] != all.Load() || sum(v) != all.Load() {
		t.Errorf("%d requests came in: %+v", all.Load(), v.Totals)
	}
	if opened, closed := v.Totals["tunnels_opened"], v.Totals["tunnels_closed"]; opened != closed || opened < s.opened.Load() {
		t.Errorf("%d tunnels opened, %d closed; the clients opened %d", opened, closed, s.opened.Load())
	}
	// What a client has lost may have been answered all the same, or may never have come.
	// Apart from that, both have counted the same.
	lost := s.broken.Load()
	for name, pair := range map[string][2]int64{
		"answers of nodes": {v.Totals["by_backend"], s.answered.Load()},
		"own answers":      {v.Totals["by_gateway"], s.refused.Load()},
		"aborted requests": {v.Totals["aborted"], 0},
		"WebSockets":       {v.Totals["tunnels_opened"], s.opened.Load()},
	} {
		if more := pair[0] - pair[1]; more < 0 || more > lost {
			t.Errorf("%s: %d, the clients counted %d, and lost %d", name, pair[0], pair[1], lost)
		}
	}
	if s.opened.Load() != s.closed.Load() {
		t.Errorf("the clients opened %d WebSockets and closed %d", s.opened.Load(), s.closed.Load())
	}
	if s.answered.Load() < 900 || s.opened.Load() < 100 {
		t.Errorf("only %d answers and %d sockets", s.answered.Load(), s.opened.Load())
	}
	// And the metrics tell the same.
	m := scrape(t, counted)
	for name, want := range map[string]int64{
		`limpet_requests_total source="backend"`:  v.Totals["by_backend"],
		`limpet_requests_total source="gateway"`:  v.Totals["by_gateway"],
		`limpet_requests_total source="affinity"`: v.Totals["by_affinity"],
		`limpet_requests_total source="none"`:     v.Totals["aborted"],
		`limpet_tunnels_opened_total `:            v.Totals["tunnels_opened"],
		`limpet_tunnels_closed_total `:            v.Totals["tunnels_closed"],
		`limpet_tunnels `:                         v.Tunnels,
		`limpet_pins_total outcome="hit"`:         v.Pins["hit"],
		`limpet_pins_total outcome="new"`:         v.Pins["new"],
		`limpet_pins_total outcome="moved"`:       v.Pins["moved"],
	} {
		if got := m(name); got != want {
			t.Errorf("metrics: %s is %d, and the state says %d", name, got, want)
		}
	}
	var pins int64
	for _, n := range v.Pins {
		pins += n
	}
	if pins != v.Totals["by_backend"] {
		t.Errorf("%d outcomes of %d answers: %v", pins, v.Totals["by_backend"], v.Pins)
	}
	t.Logf("%+v %+v, the clients lost %d", v.Totals, v.Pins, lost)

	// A backend that is removed takes nothing out of the sums.
	_ = g.pool.Remove("b")
	if after := g.state(""); len(after.Backends) != 3 || !maps.Equal(after.Totals, v.Totals) {
		t.Errorf("after a removal: %+v, before it: %+v", after.Totals, v.Totals)
	}
}

// scrape returns a function that sums the metrics which have a name and a label.
func scrape(t *testing.T, h http.Handler) func(nameAndLabel string) int64 {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	lines := strings.Split(w.Body.String(), "\n")
	return func(nameAndLabel string) (sum int64) {
		t.Helper()
		name, label, _ := strings.Cut(nameAndLabel, " ")
		for _, line := range lines {
			if series, value, ok := strings.Cut(line, "} "); ok && strings.HasPrefix(series, name+"{") && strings.Contains(series, label) {
				n, err := strconv.ParseFloat(value, 64)
				if err != nil {
					t.Errorf("%s: %v", line, err)
				}
				sum += int64(n)
			}
		}
		return sum
	}
}

func isDone(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func sum(v view) int64 {
	return v.Totals["by_backend"] + v.Totals["by_gateway"] + v.Totals["by_affinity"] + v.Totals["aborted"]
}

// Only what is the backend's fault is its error, and only what was sent again is a retry.
func TestFailedAttempts(t *testing.T) {
	t.Parallel()
	t.Run("nothing is left to try", func(t *testing.T) {
		t.Parallel()
		g := newRig(t, "a", nil, &limpet.Options{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusOK) // a page of the user's own
		}})
		g.nodes["a"].Kill()
		g.get("/")
		eventually(t, "the request", func() bool { return g.state("").Totals["requests"] == 1 })
		if a := g.backend("a"); a.Totals["errors"] != 1 || a.Totals["retries"] != 0 {
			t.Errorf("%v, want one error and no retry", a.Totals)
		}
	})
	t.Run("the gateway shuts down", func(t *testing.T) {
		t.Parallel()
		g := newRig(t, "a", nil, nil)
		if err := g.gateway.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if conn, _, err := websocket.Dial(t.Context(), g.srv.URL, nil); err == nil {
			conn.CloseNow()
			t.Fatal("a tunnel was opened after Shutdown")
		}
		eventually(t, "the request", func() bool { return g.state("").Totals["requests"] == 1 })
		if a := g.backend("a"); a.Totals["errors"] != 0 {
			t.Errorf("%v, want no error", a.Totals)
		}
	})
}

// Without a deadline a drained backend is empty each time when a client that polls has got
// its answer. The timeline has that once, and room for what else has happened.
func TestEmptyIsOneEvent(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a b", nil, nil)
	told := make(chan bool, 10)
	g.pool.OnChange(func(c balancer.Change) { // behind the Handler's own
		if c.Empty {
			told <- true
		}
	})
	a := g.pool.Get("a")
	for range 2 {
		_ = g.pool.Drain("a", 0)
		<-told
		for range 5 {
			a.Begin()
			a.End()
			<-told
		}
		_ = g.pool.Undrain("a")
	}
	n := 0
	for _, e := range g.state("?history=1").Events {
		if e.Kind == "empty" {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d events of 2 drains", n)
	}
}
