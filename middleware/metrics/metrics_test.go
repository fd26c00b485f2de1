package metrics_test

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/metrics"
)

// What each request and tunnel changes, and nothing else: a name stands for an increase
// by 1.
func TestCounts(t *testing.T) {
	t.Parallel()
	const requests, pins = `limpet_requests_total{backend="a",code="`, `limpet_pins_total{backend="a",outcome="`
	latency := []string{`limpet_request_duration_seconds{backend="a"}`, `limpet_request_first_byte_seconds{backend="a"}`}
	usual := append(latency, requests+`2xx",source="backend"}`, pins+`new"}`, `limpet_sent_bytes_total{backend="a"}`)
	for _, tt := range []struct {
		name string
		do   func(r *rig)
		want []string
	}{
		{"answer", func(r *rig) { r.get("/") }, usual},
		{"home", func(r *rig) {
			res, err := http.Get(r.server.URL)
			if err != nil {
				r.t.Fatal(err)
			}
			res.Body.Close()
			r.await("the first request", func(all map[string]float64) bool { return sum(all, "limpet_requests_total") == 1 })
			req, _ := http.NewRequest("GET", r.server.URL, nil)
			req.AddCookie(res.Cookies()[0])
			if res, err = http.DefaultClient.Do(req); err != nil {
				r.t.Fatal(err)
			}
			res.Body.Close()
		}, append(usual, pins+`hit"}`)},
		{"upload", func(r *rig) {
			res, err := http.Post(r.server.URL, "text/plain", strings.NewReader("x"))
			if err != nil {
				r.t.Fatal(err)
			}
			res.Body.Close()
		}, append(usual, `limpet_received_bytes_total{backend="a"}`)},
		{"not found", func(r *rig) { r.get("/missing") }, append(latency, requests+`4xx",source="backend"}`, pins+`new"}`, `limpet_sent_bytes_total{backend="a"}`)},
		{"fails", func(r *rig) { r.get("/fails") }, append(latency, requests+`5xx",source="backend"}`, pins+`new"}`)},
		{"long poll", func(r *rig) { r.get("/?EIO=4&transport=polling&sid=x") }, usual[2:]},
		{"opening of a long poll", func(r *rig) { r.get("/?EIO=4&transport=polling") }, usual},
		{"stream", func(r *rig) { r.get("/events") }, usual[2:4]},
		{"the user's own", func(r *rig) { r.get("/report") }, usual[2:]},
		{"backend breaks off", func(r *rig) { r.get("/breaks") }, append(usual[2:], `limpet_aborts_total{backend="a",by="backend"}`)},
		{"client leaves", func(r *rig) {
			ctx, cancel := context.WithCancel(r.t.Context())
			req, _ := http.NewRequestWithContext(ctx, "GET", r.server.URL+"/waits", nil)
			done := make(chan struct{})
			go func() { http.DefaultClient.Do(req); close(done) }()
			r.await("the request", func(all map[string]float64) bool { return all[`limpet_requests_in_flight{backend="a"}`] == 1 })
			cancel()
			<-done
		}, []string{`limpet_requests_total{backend="",code="4xx",source="none"}`, `limpet_aborts_total{backend="a",by="client"}`}},
		{"no backend", func(r *rig) { r.pool.Off("a"); r.get("/") }, []string{
			`limpet_requests_total{backend="",code="5xx",source="gateway"}`, `limpet_gateway_answers_total{cause="no_backend"}`,
			`limpet_backend_changes_total{backend="a",to="down"}`, `limpet_backend_state{backend="a",state="down"}`, `limpet_backend_wish{backend="a",wish="off"}`}},
		{"backend dies", func(r *rig) { r.nodes["a"].Kill(); r.get("/") }, []string{
			`limpet_requests_total{backend="",code="5xx",source="gateway"}`, `limpet_gateway_answers_total{cause="no_backend"}`,
			`limpet_backend_failures_total{backend="a",cause="connect"}`}},
		{"too large", func(r *rig) {
			res, err := http.Post(r.server.URL, "text/plain", strings.NewReader(strings.Repeat("x", 1001)))
			if err != nil {
				r.t.Fatal(err)
			}
			res.Body.Close()
		}, []string{`limpet_requests_total{backend="",code="4xx",source="gateway"}`, `limpet_gateway_answers_total{cause="body_too_large"}`}},
		{"tunnel", func(r *rig) { r.dial() }, []string{
			requests + `1xx",source="backend"}`, pins + `new"}`, `limpet_tunnels{backend="a"}`, `limpet_tunnels_opened_total{backend="a"}`}},
		{"tunnel that ends", func(r *rig) {
			conn := r.dial()
			if err := conn.Write(r.t.Context(), websocket.MessageText, nil); err != nil {
				r.t.Fatal(err)
			}
			if _, _, err := conn.Read(r.t.Context()); err != nil {
				r.t.Fatal(err)
			}
			conn.Close(4711, "")
		}, []string{
			requests + `1xx",source="backend"}`, pins + `new"}`, `limpet_tunnels_opened_total{backend="a"}`,
			`limpet_tunnels_closed_total{backend="a",code="4xxx",side="client"}`, `limpet_tunnel_duration_seconds`,
			`limpet_tunnel_messages_total{backend="a",direction="to_client"}`, `limpet_tunnel_messages_total{backend="a",direction="to_backend"}`,
			`limpet_tunnel_bytes_total{backend="a",direction="to_client"}`, `limpet_tunnel_bytes_total{backend="a",direction="to_backend"}`}},
		{"drain", func(r *rig) { r.dial(); r.pool.Drain("a", time.Hour) }, []string{
			requests + `1xx",source="backend"}`, pins + `new"}`, `limpet_tunnels{backend="a"}`, `limpet_tunnels_opened_total{backend="a"}`,
			`limpet_backend_changes_total{backend="a",to="draining"}`, `limpet_backend_state{backend="a",state="draining"}`,
			`limpet_backend_wish{backend="a",wish="drain"}`, `limpet_drain_left{backend="a"}`, `limpet_drain_end_timestamp_seconds{backend="a"}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, limpet.Options{MaxBody: 1000}, &metrics.Options{
				Long: func(rec *limpet.Record) bool { return rec.Request.URL.Path == "/report" },
			})
			before := r.series()
			tt.do(r)
			want := slices.Sorted(slices.Values(tt.want))
			grown := func(all map[string]float64) []string {
				var names []string
				for name, v := range all {
					if v > before[name] {
						names = append(names, name)
					}
				}
				return slices.Sorted(slices.Values(names))
			}
			r.await(strings.Join(want, ", "), func(all map[string]float64) bool {
				return slices.Equal(grown(all), slices.Compact(want))
			})
		})
	}
}

// A request that fails at one backend and is answered by another.
func TestRedispatch(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, limpet.Options{Affinity: &affinity.Hash{Key: affinity.Query("k")}}, nil)
	r.nodes["a"].Kill()
	n := 0
	for ; sum(r.series(), "limpet_backend_failures_total") == 0; n++ {
		if status := r.get("/?k=" + strings.Repeat("x", n)); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	all := r.series()
	for name, want := range map[string]float64{
		`limpet_backend_failures_total{backend="a",cause="connect"}`: 1, `limpet_retries_total{backend="a"}`: 1, `limpet_redispatches_total{backend="a"}`: 1,
		`limpet_requests_total{backend="a",code="2xx",source="backend"}`: 0, `limpet_requests_total{backend="b",code="2xx",source="backend"}`: float64(n),
	} {
		if got, ok := all[name]; got != want || !ok {
			t.Errorf("%s is %v (%t), want %v", name, got, ok, want)
		}
	}
}

// A backend that leaves the pool takes its series along, and what still ends there makes no
// new ones. One that comes has all of its series at 0.
func TestBackendsComeAndGo(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, limpet.Options{}, nil)
	of := func(id string) (names []string) {
		for name := range r.series() {
			if strings.Contains(name, `backend="`+id+`"`) {
				names = append(names, strings.ReplaceAll(name, `"`+id+`"`, `"?"`))
			}
		}
		return slices.Sorted(slices.Values(names))
	}
	fresh := of("a")
	if len(fresh) < 30 {
		t.Errorf("only %d series: %v", len(fresh), fresh)
	}
	r.dial()
	r.add("b")
	if got := of("b"); !slices.Equal(got, fresh) {
		t.Errorf("a new backend has %v, want %v", got, fresh)
	}
	if err := r.pool.Remove("a"); err != nil { // which ends the tunnel
		t.Fatal(err)
	}
	r.await("the end of the tunnel", func(all map[string]float64) bool {
		return all[`limpet_tunnels_closed_total{backend="",code="1012",side="gateway"}`] == 1
	})
	if got := of("a"); got != nil {
		t.Errorf("a backend that was removed has %v", got)
	}
	r.add("a")
	if got := of("a"); !slices.Equal(got, fresh) {
		t.Errorf("a backend that was added again has %v", got)
	}
}

// The parts have metrics where they are given, and all metrics are what Prometheus expects
// of names, units and help.
func TestParts(t *testing.T) {
	t.Parallel()
	messages := &bus.Memory{}
	rooms, err := hub.New(messages, nil)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := messages.Subscribe(t.Context(), "topic")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	r := newRig(t, 2, limpet.Options{Bus: messages}, &metrics.Options{Store: &affinity.Redis{}, Bus: messages, Hub: rooms})
	all := r.series()
	for name, want := range map[string]float64{
		"limpet_replicas": 0, "limpet_store_circuit_open": 0, "limpet_bus_topics": 1, "limpet_hub_nodes": 1, "limpet_hub_members": 0,
	} {
		if got, ok := all[name]; got != want || !ok {
			t.Errorf("%s is %v (%t), want %v", name, got, ok, want)
		}
	}
	problems, err := testutil.GatherAndLint(r.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}

	alone := newRig(t, 2, limpet.Options{}, nil)
	for name := range maps.Keys(alone.series()) {
		for _, part := range []string{"limpet_store_", "limpet_bus_", "limpet_hub_", "limpet_replicas"} {
			if strings.HasPrefix(name, part) {
				t.Errorf("%s without such a part", name)
			}
		}
	}
}

// Two gateways of one process are told apart by a label.
func TestTwoGateways(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	for _, name := range []string{"chat", "shop"} {
		gateway, err := limpet.NewGateway(balancer.Static("a=http://127.0.0.1:1"), nil)
		if err != nil {
			t.Fatal(err)
		}
		prometheus.WrapRegistererWith(prometheus.Labels{"gateway": name}, registry).MustRegister(metrics.New(gateway, nil))
	}
	n, err := testutil.GatherAndCount(registry, "limpet_tunnels")
	if n != 2 || err != nil {
		t.Errorf("%d series, %v", n, err)
	}
}

// A collector that was stopped counts nothing more.
func TestStop(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, limpet.Options{}, nil)
	c := metrics.New(r.gateway, nil)
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	c.Stop()
	r.get("/")
	r.await("the request", func(all map[string]float64) bool { return sum(all, "limpet_requests_total") == 1 })
	r.registry = registry
	if n := sum(r.series(), "limpet_requests_total"); n != 0 {
		t.Errorf("%v requests counted after Stop", n)
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, limpet.Options{}, nil)
	h := metrics.Handler(r.gateway, nil)
	r.get("/")
	r.await("the request", func(all map[string]float64) bool { return sum(all, "limpet_requests_total") == 1 })
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{`limpet_requests_total{backend="a",code="2xx",source="backend"} 1`, "go_goroutines", "process_start_time_seconds"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s in the answer %d", want, w.Code)
		}
	}
}
