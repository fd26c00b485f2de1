package balancer_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// first picks the first backend, to be told from the pool's own choices.
type first struct{}

func (first) Pick(_ *http.Request, from []*balancer.Backend) *balancer.Backend { return from[0] }

func TestPick(t *testing.T) {
	t.Parallel()
	// In this pool a and b are up, c is drained by the operator, d is off.
	p := newPool(t, &balancer.Options{Picker: first{}}, "a", "b", "c", "d")
	must(t, p.Drain("c", 0))
	must(t, p.Off("d"))
	p.Get("a").Begin()
	byKey, err := p.Pick(nil, "", "key")
	must(t, err)
	other := map[string]string{"a": "b", "b": "a"}

	for _, tt := range []struct {
		name, home, key string
		tried           []string
		want            string // "" = ErrNoBackend
	}{
		{"new client", "", "", nil, "a"},
		{"home is up", "b", "", nil, "b"},
		{"home before key", "b", "key", nil, "b"},
		{"home is draining", "c", "key", nil, "c"},
		{"home is down", "d", "", nil, "a"},
		{"home is down, key", "d", "key", nil, byKey.ID()},
		{"home is unknown", "gone", "key", nil, byKey.ID()},
		{"home was tried", "b", "", []string{"b"}, "a"},
		{"key, its backend was tried", "", "key", []string{byKey.ID()}, other[byKey.ID()]},
		{"without key the least loaded of the rest", "", "", []string{"c"}, "b"},
		{"all were tried", "", "", []string{"a", "b"}, ""},
		{"all were tried, key", "", "key", []string{"a", "b"}, ""},
		{"all were tried, home is draining", "c", "key", []string{"a", "b"}, "c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tried []*balancer.Backend
			for _, id := range tt.tried {
				tried = append(tried, p.Get(id))
			}
			b, err := p.Pick(nil, tt.home, tt.key, tried...)
			if tt.want == "" {
				if !errors.Is(err, balancer.ErrNoBackend) {
					t.Errorf("picked %v, %v, want ErrNoBackend", b, err)
				}
				return
			}
			if err != nil || b.ID() != tt.want {
				t.Errorf("picked %v, %v, want %s", b, err, tt.want)
			}
		})
	}
	if _, err := newPool(t, nil).Pick(nil, "a", "key"); !errors.Is(err, balancer.ErrNoBackend) || !strings.Contains(err.Error(), "the pool has none") {
		t.Errorf("empty pool: %v, want an ErrNoBackend that says so", err)
	}
}

// pickers are all of the package, by name.
func pickers() map[string]balancer.Picker {
	return map[string]balancer.Picker{
		"RoundRobin": &balancer.RoundRobin{},
		"LeastConn":  &balancer.LeastConn{},
		"TwoChoices": &balancer.TwoChoices{},
		"Random":     &balancer.Random{},
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for name, picker := range pickers() {
		p := newPool(t, &balancer.Options{Picker: picker}, "a", "b", "c")
		must(t, p.Drain("c", time.Hour))
		if n := testing.AllocsPerRun(100, func() {
			p.Pick(nil, "", "")
			p.Pick(nil, "a", "key")
			p.Pick(nil, "c", "key")
			p.Pick(nil, "", "key")
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{3, 10, 100, 1000} {
		var backends []*balancer.Backend
		for i := range n {
			backends = append(backends, newBackend(b, fmt.Sprint("node-", i), 1))
		}
		p, err := balancer.NewPool(nil, backends...)
		must(b, err)
		b.Run(fmt.Sprint("home/", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Pick(nil, "node-1", "client")
			}
		})
		b.Run(fmt.Sprint("key/", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Pick(nil, "", "client")
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/backend")
		})
	}
}

func BenchmarkPicker(b *testing.B) {
	for name, picker := range pickers() {
		for _, n := range []int{3, 100} {
			from := make([]*balancer.Backend, n)
			for i := range from {
				from[i] = newBackend(b, fmt.Sprint("node-", i), i%3+1)
			}
			b.Run(fmt.Sprint(name, "/", n), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						picker.Pick(nil, from)
					}
				})
			})
		}
	}
}
