package balancer_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/limpet-go/limpet/balancer"
)

// With a bound a key that many clients share overloads nobody, and the other keys stay.
func TestHashBound(t *testing.T) {
	for _, tt := range []struct {
		name  string
		specs []string
		bound float64
	}{
		{"equal", []string{"a=http://a.test", "b=http://b.test", "c=http://c.test", "d=http://d.test"}, 1.25},
		{"weighted", []string{"a=http://a.test,weight=3", "b=http://b.test", "c=http://c.test,weight=2"}, 1.5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := balancer.ParsePool(&balancer.Options{HashBound: tt.bound}, tt.specs...)
			must(t, err)
			free, err := balancer.ParsePool(nil, tt.specs...)
			must(t, err)
			weights, clients := 0, 0
			for b := range p.All() {
				weights += b.Weight()
			}
			begin := func(key string) *balancer.Backend {
				b := pick(t, p, "", key)
				b.Begin()
				clients++
				for b := range p.All() {
					most := math.Ceil(tt.bound * float64(clients) * float64(b.Weight()) / float64(weights))
					if n := float64(b.InFlight()); n > most {
						t.Fatalf("%s has %v of %d, want %v at most", b.ID(), n, clients, most)
					}
				}
				return b
			}
			hot := free.Get(pick(t, free, "", "office").ID())
			for range 1000 {
				begin("office")
			}
			if n := p.Get(hot.ID()).InFlight(); n < int64(float64(1000*hot.Weight()/weights)*tt.bound)-1 {
				t.Errorf("the first choice has %d, less than it may", n)
			}
			// A client with a home, or without a key, isn't bounded.
			if b := pick(t, p, hot.ID(), "office"); b.ID() != hot.ID() {
				t.Errorf("a pinned client goes to %s", b.ID())
			}
			if b := pick(t, p, "gone", "office"); b.ID() != hot.ID() {
				t.Errorf("a client whose home is gone goes to %s, replicas to %s", b.ID(), hot.ID())
			}
			for b := range p.All() { // where there is room, the hash decides alone
				for b.InFlight() > 0 {
					b.End()
				}
			}
			for i := range 100 {
				key := fmt.Sprint(i)
				if b, want := pick(t, p, "", key), pick(t, free, "", key); b.ID() != want.ID() {
					t.Errorf("%s is at %s, want %s", key, b.ID(), want.ID())
				}
			}
		})
	}
	p := newPool(t, &balancer.Options{HashBound: 1.1}, "a", "b")
	if n := testing.AllocsPerRun(100, func() { p.Pick(nil, "", "key") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	first := pick(t, p, "", "key")
	other := pick(t, p, "", "key", first)
	other.Begin()
	other.Begin()
	if b := pick(t, p, "", "key", first); b != other {
		t.Error("the only one that wasn't tried is left out since it is full")
	}
	for _, bound := range []float64{1, 0.5, -1, math.NaN(), math.Inf(1)} {
		if _, err := balancer.NewPool(&balancer.Options{HashBound: bound}); err == nil {
			t.Errorf("HashBound %v is accepted", bound)
		}
	}
}
