package metrics_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/status"
)

// crowd are clients that count what they get.
type crowd struct {
	r    *rig
	stop chan struct{} // closed when they are to end

	requests  atomic.Int64 // in all, handshakes included
	byBackend atomic.Int64 // answers of backends, 101 included, which name their node
	byGateway atomic.Int64 // answers that name none
	broken    atomic.Int64 // answers of backends that broke off, and connections without an answer
	left      atomic.Int64 // requests that the client gave up
	opened    atomic.Int64 // tunnels
}

// All that clients see during faults is in the metrics and on the status page, once: 300
// clients request and talk while backends are killed, drained, turned off and added.
func TestCountsAddUpDuringFaults(t *testing.T) {
	const clients = 300
	r := newRig(t, 5, limpet.Options{}, nil)
	page := status.New(r.gateway, nil)
	defer page.Close()
	ctx, cancel := context.WithCancel(t.Context())
	checks := make(chan error)
	go func() { checks <- r.pool.Run(ctx) }()
	defer func() { cancel(); <-checks }()

	c := &crowd{r: r, stop: make(chan struct{})}
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			jar, _ := cookiejar.New(nil)
			// On a new connection, a request that breaks isn't sent again by itself.
			client := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
			for n := i; !c.over(); n++ {
				if i%3 == 0 {
					c.talk(ctx, client)
				} else {
					c.request(ctx, client, n)
				}
			}
		})
	}
	for _, fault := range []func(){
		func() {},
		func() { r.nodes["a"].Kill() },
		func() { r.pool.Drain("b", 300*time.Millisecond) },
		func() { r.pool.Off("c"); r.pool.Undrain("b") },
		func() { r.pool.Undrain("c"); r.nodes["d"].Kill() },
		func() {
			for b := range r.pool.All() {
				r.pool.Off(b.ID())
			}
		},
		func() {
			r.add("f")
			for b := range r.pool.All() {
				r.pool.Undrain(b.ID())
			}
		},
	} {
		fault()
		before := c.requests.Load()
		r.await("requests", func(map[string]float64) bool { return c.requests.Load() > before+clients })
	}
	close(c.stop)
	all.Wait()

	var seen map[string]float64
	r.await("the ends of all requests and tunnels", func(all map[string]float64) bool {
		seen = all
		return sum(all, "limpet_requests_in_flight") == 0 && sum(all, "limpet_tunnels{") == 0 &&
			sum(all, "limpet_requests_total") >= float64(c.requests.Load()) &&
			sum(all, "limpet_tunnels_closed_total") >= float64(c.opened.Load())
	})
	const requests = "limpet_requests_total"
	state := stateOf(t, page)
	for _, tt := range []struct {
		name      string
		got, want float64
	}{
		{"requests", sum(seen, requests), float64(c.requests.Load())},
		{"answers of backends", sum(seen, requests, `source="backend"`), float64(c.byBackend.Load() + c.broken.Load())},
		// Who leaves while the gateway answers can't tell whether it did.
		{"answers of the gateway and none", sum(seen, requests, `source="gateway"`) + sum(seen, requests, `source="none"`), float64(c.byGateway.Load() + c.left.Load())},
		{"answers of the affinity", sum(seen, requests, `source="affinity"`), 0},
		{"causes of the gateway's answers", sum(seen, "limpet_gateway_answers_total"), sum(seen, requests, `source="gateway"`)},
		{"pins", sum(seen, "limpet_pins_total"), sum(seen, requests, `source="backend"`)},
		{"answers that broke off", sum(seen, "limpet_aborts_total", `by="backend"`), float64(c.broken.Load())},
		{"tunnels opened", sum(seen, "limpet_tunnels_opened_total"), float64(c.opened.Load())},
		{"tunnels opened by requests", sum(seen, requests, `code="1xx"`), float64(c.opened.Load())},
		{"tunnels closed", sum(seen, "limpet_tunnels_closed_total"), float64(c.opened.Load())},
		{"ages of tunnels", seen["limpet_tunnel_duration_seconds"], float64(c.opened.Load())},
		{"redispatches", sum(seen, "limpet_redispatches_total"), sum(seen, "limpet_retries_total")},

		{"requests on the page", state.Totals.Requests, sum(seen, requests)},
		{"by backends on the page", state.Totals.ByBackend, sum(seen, requests, `source="backend"`)},
		{"by the gateway on the page", state.Totals.ByGateway, sum(seen, requests, `source="gateway"`)},
		{"aborted on the page", state.Totals.Aborted, sum(seen, requests, `source="none"`)},
		{"retries on the page", state.Totals.Retries, sum(seen, "limpet_retries_total")},
		{"tunnels opened on the page", state.Totals.TunnelsOpened, sum(seen, "limpet_tunnels_opened_total")},
		{"tunnels closed on the page", state.Totals.TunnelsClosed, sum(seen, "limpet_tunnels_closed_total")},
		{"moved on the page", state.Pins.Moved, sum(seen, "limpet_pins_total", `outcome="moved"`)},
		{"hits on the page", state.Pins.Hit, sum(seen, "limpet_pins_total", `outcome="hit"`)},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v in the metrics, want %v", tt.name, tt.got, tt.want)
		}
	}
	for name, n := range map[string]float64{
		"broken": float64(c.broken.Load()), "left": float64(c.left.Load()), "answered by the gateway": float64(c.byGateway.Load()), "moved": sum(seen, "limpet_pins_total", `outcome="moved"`),
		"failures": sum(seen, "limpet_backend_failures_total"), "1012": sum(seen, "limpet_tunnels_closed_total", `code="1012"`),
		"checked": sum(seen, "limpet_backend_checked_timestamp_seconds"), "timed by a check": sum(seen, "limpet_backend_check_duration_seconds"),
		"down": sum(seen, "limpet_backend_changes_total", `to="down"`),
	} {
		if n == 0 {
			t.Errorf("nothing %s: the test tests too little", name)
		}
	}
	t.Logf("%d requests: %d by backends, %d broken off, %d by the gateway, %d left; %d tunnels",
		c.requests.Load(), c.byBackend.Load(), c.broken.Load(), c.byGateway.Load(), c.left.Load(), c.opened.Load())
}

// A state is what the test reads of the status API.
type state struct {
	Totals struct {
		Requests      float64
		ByBackend     float64 `json:"by_backend"`
		ByGateway     float64 `json:"by_gateway"`
		Aborted       float64
		Retries       float64
		TunnelsOpened float64 `json:"tunnels_opened"`
		TunnelsClosed float64 `json:"tunnels_closed"`
	}
	Pins struct{ Hit, Moved float64 }
}

func stateOf(t *testing.T, page http.Handler) (s state) {
	t.Helper()
	w := httptest.NewRecorder()
	page.ServeHTTP(w, httptest.NewRequest("GET", "/api/state", nil))
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
		t.Fatalf("%v of %d %s", err, w.Code, w.Body)
	}
	return s
}

func (c *crowd) over() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

// request makes one request. Some break off at the backend, and some are given up.
func (c *crowd) request(ctx context.Context, client *http.Client, n int) {
	path := "/"
	switch {
	case n%7 == 0:
		path = "/breaks"
	case n%11 == 0:
		path = "/waits"
		limited, cancel := context.WithCancel(ctx)
		defer cancel()
		// Not before the gateway is sure to get it.
		ctx = httptrace.WithClientTrace(limited, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) {
			time.AfterFunc(20*time.Millisecond, cancel)
		}})
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.r.server.URL+path, nil)
	if err != nil {
		c.r.t.Error(err)
		return
	}
	c.requests.Add(1)
	res, err := client.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	switch {
	case path == "/waits" && err != nil:
		c.left.Add(1)
	case err != nil:
		c.broken.Add(1)
	case res.Header.Get("Node") == "":
		c.byGateway.Add(1)
	default:
		c.byBackend.Add(1)
	}
}

// talk opens a tunnel, and sends some messages until it is closed or it is time to close.
func (c *crowd) talk(ctx context.Context, client *http.Client) {
	c.requests.Add(1)
	conn, res, err := websocket.Dial(ctx, c.r.server.URL, &websocket.DialOptions{HTTPClient: client})
	switch {
	case res == nil:
		c.r.t.Errorf("a handshake without an answer: %v", err)
		return
	case res.Header.Get("Node") == "":
		c.byGateway.Add(1)
		return
	}
	c.byBackend.Add(1)
	if err != nil {
		c.r.t.Errorf("a handshake with the answer %s: %v", res.Status, err)
		return
	}
	c.opened.Add(1)
	defer conn.CloseNow()
	for range 20 {
		if conn.Write(ctx, websocket.MessageText, []byte("hello")) != nil {
			return
		}
		if _, _, err := conn.Read(ctx); err != nil {
			return
		}
		select {
		case <-c.stop:
		case <-time.After(10 * time.Millisecond): // a client's pace; nothing waits for it
		}
	}
	conn.Close(websocket.StatusNormalClosure, "")
}
