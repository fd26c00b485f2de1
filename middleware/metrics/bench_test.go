package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/process"
	limpet "github.com/limpet-go/limpet/middleware"
)

// What one request costs the collector by itself, and what it allocates: nothing.
func BenchmarkRequest(b *testing.B) {
	c, rec := observed(b)
	b.ReportAllocs()
	before := process.CPU() // on a machine with other work, time says little
	for b.Loop() {
		c.request(rec)
	}
	b.ReportMetric(float64(process.CPU()-before)/float64(b.N), "cpu-ns/op")
}

func BenchmarkRequestParallel(b *testing.B) {
	c, rec := observed(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.request(rec)
		}
	})
}

func TestRequestAllocatesNothing(t *testing.T) {
	c, rec := observed(t)
	if n := testing.AllocsPerRun(100, func() { c.request(rec) }); n > 0 {
		t.Errorf("%v allocations for a request", n)
	}
	end := &limpet.TunnelRecord{Backend: rec.Backend}
	if n := testing.AllocsPerRun(100, func() { c.closed(end) }); n > 0 {
		t.Errorf("%v allocations for a tunnel", n)
	}
}

// observed returns a collector, and the record of a small GET.
func observed(t testing.TB) (*Collector, *limpet.Record) {
	pool := balancer.Static("a=http://10.0.0.1", "b=http://10.0.0.2", "c=http://10.0.0.3")
	gateway, err := limpet.NewGateway(pool, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := pool.Get("a")
	return New(gateway, nil), &limpet.Record{
		Request: httptest.NewRequest(http.MethodGet, "/path?query=value", nil), Header: http.Header{"Content-Type": {"text/plain"}},
		Status: 200, Source: limpet.SourceBackend, Outcome: "hit", Backend: a, Attempts: []limpet.Attempt{{Backend: a}},
		Sent: 100, Picked: time.Microsecond, FirstByte: 300 * time.Microsecond, Duration: 400 * time.Microsecond,
	}
}

// One scrape of a gateway with many backends.
func BenchmarkCollect(b *testing.B) {
	pool, err := balancer.NewPool(nil)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 200 {
		backend, err := balancer.NewBackend(fmt.Sprint("backend-", i), fmt.Sprint("http://10.0.0.", i), 1)
		if err == nil {
			err = pool.Add(backend)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	gateway, err := limpet.NewGateway(pool, nil)
	if err != nil {
		b.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(New(gateway, nil))
	b.ReportAllocs()
	before := process.CPU()
	for b.Loop() {
		families, err := registry.Gather()
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for _, f := range families {
			n += len(f.GetMetric())
		}
		b.ReportMetric(float64(n), "series")
	}
	b.ReportMetric(float64(process.CPU()-before)/float64(b.N), "cpu-ns/op")
}
