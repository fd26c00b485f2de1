package metrics_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/middleware/metrics"
)

// figures are those of a bus of one's own.
type figures bus.Stats

func (f figures) Stats() bus.Stats { return bus.Stats(f) }

// The figures arrive at the metrics that are named after them.
func TestBus(t *testing.T) {
	t.Parallel()
	f := figures{
		Published: 1, PublishErrors: 2, Delivered: 3, Gaps: 4, Dropped: 5, ClosedSlow: 6, Topics: 7, Away: 8,
		Subscriptions: 9, Queued: 10, LongestQueue: 11, Disconnects: 12,
	}
	for i := range f.PublishTimes.Counts {
		f.PublishTimes.Counts[i] = 2
	}
	f.PublishTimes.Sum = 1500 * time.Millisecond
	c := metrics.Bus(f)
	want := `# HELP limpet_bus_publish_duration_seconds How long it took to publish a message, or to fail.
# TYPE limpet_bus_publish_duration_seconds histogram
limpet_bus_publish_duration_seconds_bucket{le="0.0001"} 2
limpet_bus_publish_duration_seconds_bucket{le="0.00025"} 4
limpet_bus_publish_duration_seconds_bucket{le="0.0005"} 6
limpet_bus_publish_duration_seconds_bucket{le="0.001"} 8
limpet_bus_publish_duration_seconds_bucket{le="0.0025"} 10
limpet_bus_publish_duration_seconds_bucket{le="0.005"} 12
limpet_bus_publish_duration_seconds_bucket{le="0.01"} 14
limpet_bus_publish_duration_seconds_bucket{le="0.025"} 16
limpet_bus_publish_duration_seconds_bucket{le="0.05"} 18
limpet_bus_publish_duration_seconds_bucket{le="0.1"} 20
limpet_bus_publish_duration_seconds_bucket{le="0.25"} 22
limpet_bus_publish_duration_seconds_bucket{le="0.5"} 24
limpet_bus_publish_duration_seconds_bucket{le="1"} 26
limpet_bus_publish_duration_seconds_bucket{le="2.5"} 28
limpet_bus_publish_duration_seconds_bucket{le="+Inf"} 30
limpet_bus_publish_duration_seconds_sum 1.5
limpet_bus_publish_duration_seconds_count 30
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), "limpet_bus_publish_duration_seconds"); err != nil {
		t.Error(err)
	}
	r := &rig{t: t, registry: prometheus.NewPedanticRegistry()}
	r.registry.MustRegister(c)
	all := r.series()
	for name, want := range map[string]float64{
		"published_total": 1, "publish_errors_total": 2, "delivered_total": 3, "gaps_total": 4, "dropped_total": 5,
		"closed_slow_total": 6, "topics": 7, "topics_away": 8, "subscriptions": 9, "queued": 10, "longest_queue": 11,
		"disconnects_total": 12, "publish_duration_seconds": 30,
	} {
		if got, ok := all["limpet_bus_"+name]; got != want || !ok {
			t.Errorf("%s is %v (%t), want %v", name, got, ok, want)
		}
	}
	if len(all) != 13 {
		t.Errorf("%d series: %v", len(all), all)
	}
}

// A service without a gateway has several buses and hubs in one registry.
func TestBusesAndHubs(t *testing.T) {
	t.Parallel()
	r := &rig{t: t, registry: prometheus.NewPedanticRegistry()}
	for _, name := range []string{"chat", "shop"} {
		b := &bus.Memory{}
		h, err := hub.New(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "topic", nil); err != nil {
			t.Fatal(err)
		}
		prometheus.WrapRegistererWith(prometheus.Labels{"service": name}, r.registry).MustRegister(metrics.Bus(b), metrics.Hub(h))
	}
	problems, err := testutil.GatherAndLint(r.registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", err, problems)
	}
	all := r.series()
	for name, want := range map[string]float64{
		`limpet_bus_published_total{service="chat"}`: 1, `limpet_hub_nodes{service="shop"}`: 1, `limpet_hub_longest_queue_bytes{service="shop"}`: 0,
	} {
		if got, ok := all[name]; got != want || !ok {
			t.Errorf("%s is %v (%t), want %v", name, got, ok, want)
		}
	}
}
