package status

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// answered is the record of a request that took some milliseconds.
func answered(b *balancer.Backend, start time.Time) *limpet.Record {
	return &limpet.Record{
		Request: httptest.NewRequest("GET", "/page?x=1", nil), Start: start, Duration: 3 * time.Millisecond, FirstByte: 2 * time.Millisecond,
		Status: 200, Source: limpet.SourceBackend, Outcome: "hit", Backend: b, Attempts: []limpet.Attempt{{Backend: b}}, Sent: 100,
	}
}

// A backend that is removed takes nothing out of the sums, and leaves nothing behind.
func TestCensusOfRemovedBackends(t *testing.T) {
	t.Parallel()
	pool, err := balancer.NewPool(&balancer.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c := newCensus(pool, nil)
	for range 100 {
		b, err := balancer.NewBackend("a", "http://127.0.0.1:1", 0)
		if err == nil {
			err = pool.Add(b)
		}
		if err != nil {
			t.Fatal(err)
		}
		late := c.of(b) // of a request that is about to count itself
		c.request(answered(b, time.Now()))
		_ = pool.Remove("a")
		c.remove(b)
		c.request(answered(b, time.Now())) // one that ends after the removal
		late.requests[limpet.SourceBackend].Add(1)
	}
	var s state
	c.sum(&s)
	if s.Totals.Requests != 300 || s.Pins.Hit != 200 {
		t.Errorf("%+v, %+v", s.Totals, s.Pins)
	}
	if n := len(*c.now.Load()); n != 0 {
		t.Errorf("%d backends are left", n)
	}
	for i := range c.removed {
		c.removed[i].at = time.Now().Add(-linger)
	}
	if c.sum(&s); len(c.removed) != 0 {
		t.Errorf("%d removed backends are watched", len(c.removed))
	}
}

// Each time is in a bucket whose middle is at most an eighth away.
func TestHistogram(t *testing.T) {
	t.Parallel()
	for d := 16 * time.Microsecond; d < time.Minute; d += d/50 + 1 {
		var h histogram
		h[bucket(d)]++
		got, ok := h.quantile(0.99)
		if off := float64(got-d) / float64(d); !ok || off > 0.126 || off < -0.126 {
			t.Fatalf("%v counts as %v", d, got)
		}
	}
	for _, d := range []time.Duration{-1, 0, time.Hour} {
		if i := bucket(d); i < 0 || i >= delays {
			t.Errorf("%v: bucket %d", d, i)
		}
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	var h histogram
	if _, ok := h.quantile(0.5); ok {
		t.Error("a quantile of nothing")
	}
	h[bucket(time.Millisecond)] = 98
	h[bucket(time.Second)] = 2
	for q, want := range map[float64]time.Duration{0.5: time.Millisecond, 0.98: time.Millisecond, 0.99: time.Second} {
		if got, _ := h.quantile(q); got < want*7/8 || got > want*9/8 {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
}

// A second that comes anew isn't the one that was there 64 seconds before.
func TestRing(t *testing.T) {
	t.Parallel()
	var r ring
	r.at(5).answered.Add(1)
	if r.find(5) == nil || r.find(5+ringSize) != nil || r.find(-59) != nil {
		t.Error("a second is found by another number")
	}
	if s := r.at(5 + ringSize); s.answered.Load() != 0 || s.number != 5+ringSize {
		t.Errorf("the second anew: %+v", s)
	}
	if r.find(5) != nil || r.at(5).number != 5+ringSize {
		t.Error("a latecomer must not take the second back")
	}
}

// Nothing is allocated for a request, except at the beginning of a second.
func TestRequestAllocates(t *testing.T) {
	pool := balancer.Static("a=http://127.0.0.1:1")
	c := newCensus(pool, nil)
	rec := answered(pool.Get("a"), time.Now())
	c.request(rec)
	if n := testing.AllocsPerRun(100, func() { c.request(rec) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	pool := balancer.Static("a=http://127.0.0.1:1", "b=http://127.0.0.1:2")
	c := newCensus(pool, nil)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		rec := answered(pool.Get("a"), time.Now())
		for pb.Next() {
			c.request(rec)
		}
	})
}

// A state of 200 backends with a busy minute behind them.
func BenchmarkState(b *testing.B) {
	quiet := slog.New(slog.DiscardHandler)
	pool, err := balancer.NewPool(&balancer.Options{Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 200 {
		backend, err := balancer.NewBackend(fmt.Sprint("b", i), fmt.Sprint("http://127.0.0.1:", 1+i), 0)
		if err == nil {
			err = pool.Add(backend)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	g, err := limpet.NewGateway(pool, &limpet.Options{Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	h := New(g, nil)
	defer h.Close()
	h.census.began = time.Now().Add(-window * time.Second)
	for backend := range pool.All() {
		for i := range window {
			h.census.request(answered(backend, h.census.began.Add(time.Duration(i)*time.Second)))
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		h.streams.at = time.Time{}
		h.streams.latest(h, false)
	}
}
