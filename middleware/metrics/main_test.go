package metrics_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/leaktest"
	"github.com/limpet-go/limpet/internal/nodetest"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/metrics"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience bounds waits for what must happen; nothing is measured by it.
const patience = 20 * time.Second

// secrets are those of all cookies.
var secrets = [][]byte{[]byte("each limpet comes home to the scar that it has ground")}

// A rig is a gateway in front of nodes, with a collector.
type rig struct {
	t        *testing.T
	nodes    map[string]*nodetest.Node
	pool     *balancer.Pool
	gateway  *limpet.Gateway
	server   *httptest.Server
	registry *prometheus.Registry // checks that what is collected is what was described
}

// newRig starts nodes a, b, ... and a gateway in front of them.
func newRig(t *testing.T, nodes int, gateway limpet.Options, opts *metrics.Options) *rig {
	t.Helper()
	r := &rig{t: t, nodes: make(map[string]*nodetest.Node), registry: prometheus.NewPedanticRegistry()}
	quiet := slog.New(slog.DiscardHandler)
	var err error
	r.pool, err = balancer.NewPool(&balancer.Options{Logger: quiet, Check: &balancer.Check{Interval: 50 * time.Millisecond, Rise: 1, Fall: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		r.add(string(rune('a' + i)))
	}
	gateway.Logger = quiet
	if gateway.Affinity == nil {
		gateway.Affinity = &affinity.Cookie{Secrets: secrets}
	}
	if r.gateway, err = limpet.NewGateway(r.pool, &gateway); err != nil {
		t.Fatal(err)
	}
	c := metrics.New(r.gateway, opts)
	r.registry.MustRegister(c)
	r.server = httptest.NewServer(r.gateway)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // cuts the tunnels that are left
		r.gateway.Shutdown(ctx)
		r.server.Close()
		c.Stop()
	})
	return r
}

// add starts a node and adds it to the pool.
func (r *rig) add(id string) {
	r.t.Helper()
	n := newNode(r.t)
	b, err := balancer.NewBackend(id, n.URL, 0)
	if err == nil {
		err = r.pool.Add(b)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.nodes[id] = n
}

// series returns the value of each series by its name and labels, such as
// limpet_tunnels{backend="a"}. Of a histogram it has the count.
func (r *rig) series() map[string]float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			name := f.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// sum returns the sum of the series whose names begin so.
func sum(all map[string]float64, prefix string, containing ...string) (sum float64) {
	for name, v := range all {
		ok := strings.HasPrefix(name, prefix)
		for _, c := range containing {
			ok = ok && strings.Contains(name, c)
		}
		if ok {
			sum += v
		}
	}
	return sum
}

// await waits until the series have what ok looks for.
func (r *rig) await(what string, ok func(map[string]float64) bool) map[string]float64 {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		all := r.series()
		if ok(all) {
			return all
		}
		select {
		case <-tick.C:
		case <-late:
			maps.DeleteFunc(all, func(_ string, v float64) bool { return v == 0 })
			r.t.Fatalf("waited in vain for %s: %v", what, all)
		}
	}
}

// get requests a path as a client without cookies, and returns the status, 0 if the
// answer broke off.
func (r *rig) get(path string) int {
	r.t.Helper()
	res, err := http.Get(r.server.URL + path)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return 0
	}
	return res.StatusCode
}

func (r *rig) dial() *websocket.Conn {
	r.t.Helper()
	conn, _, err := websocket.Dial(r.t.Context(), r.server.URL, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.CloseNow() })
	return conn
}

// newNode starts a backend that does what the path says, and echoes what comes on WebSockets.
func newNode(t *testing.T) *nodetest.Node { return nodetest.New(t, http.HandlerFunc(behave)) }

func behave(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Node", r.Host)
	switch {
	case r.Header.Get("Upgrade") != "":
		nodetest.Echo(w, r)
	case r.URL.Path == "/missing":
		http.NotFound(w, r)
	case r.URL.Path == "/fails":
		w.WriteHeader(http.StatusInternalServerError)
	case r.URL.Path == "/events":
		w.Header().Set("Content-Type", "Text/Event-Stream; charset=utf-8")
	case r.URL.Path == "/breaks":
		w.Write([]byte("the beginning"))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case r.URL.Path == "/waits":
		<-r.Context().Done()
	default:
		io.Copy(io.Discard, r.Body)
		w.Write([]byte("hello"))
	}
}
