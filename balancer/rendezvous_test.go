package balancer_test

import (
	"fmt"
	"math"
	"strconv"
	"testing"

	"github.com/limpet-go/limpet/balancer"
)

// TestRendezvous checks the two promises of rendezvous hashing for pools of
// several sizes: a backend that leaves moves only the keys that it had, and the
// load of each is what chance allows.
//
// What chance allows: if the hash were perfect, the load of a backend with the
// share s of the weights would be a binomial with mean m = keys x s. Bernstein's
// inequality bounds the chance of a load off by more than d, to either side, by
// 2 exp(-d^2 / (2 (m + d/3))). The test asks for a d that makes the chance that any
// of the n backends is off by more at most 1 in 1000: with l = ln(2000 n),
// d = l/3 + sqrt(l^2/9 + 2 l m). Keys and IDs are fixed, so that it passes
// always or never.
func TestRendezvous(t *testing.T) {
	t.Parallel()
	const keys = 100_000
	for _, tt := range []struct {
		name   string
		n      int
		weight func(i int) int
	}{
		{"10 equal", 10, func(int) int { return 1 }},
		{"100 equal", 100, func(int) int { return 2 }},
		{"1000 equal", 1000, func(int) int { return 1 }},
		{"10 weighted", 10, func(i int) int { return 1 + i }},
		{"100 weighted", 100, func(i int) int { return 1 + i%4 }},
		{"all but one equal", 10, func(i int) int { return 1 + 3/(i+1) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			backends := make([]*balancer.Backend, tt.n)
			sum := 0
			for i := range backends {
				backends[i] = newBackend(t, fmt.Sprint("node-", i), tt.weight(i))
				sum += tt.weight(i)
			}
			p, err := balancer.NewPool(nil, backends...)
			must(t, err)
			place := func(key int) *balancer.Backend {
				b, err := p.Pick(nil, "", "client-"+strconv.Itoa(key))
				must(t, err)
				return b
			}
			before := make([]*balancer.Backend, keys)
			load := make(map[*balancer.Backend]float64, tt.n)
			for key := range before {
				before[key] = place(key)
				load[before[key]]++
			}

			worst := 0.0
			for _, b := range backends {
				mean := keys * float64(b.Weight()) / float64(sum)
				l := math.Log(2000 * float64(tt.n))
				d := l/3 + math.Sqrt(l*l/9+2*l*mean)
				if math.Abs(load[b]-mean) > d {
					t.Errorf("%s has %v keys, want %.0f by its weight, give or take %.0f", b.ID(), load[b], mean, d)
				}
				worst = max(worst, load[b]/mean)
			}
			t.Logf("worst load over mean: %.3f", worst)

			gone := backends[0]
			must(t, p.Remove(gone.ID()))
			for key, home := range before {
				switch now := place(key); {
				case now == gone:
					t.Fatalf("key %d is on the removed backend", key)
				case now != home && home != gone:
					t.Fatalf("key %d moved from %s to %s, though %s left", key, home.ID(), now.ID(), gone.ID())
				}
			}
		})
	}
}

func TestRendezvousIgnoresOrder(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil, "a", "b", "c", "d")
	q := newPool(t, nil, "d", "b", "a", "c")
	for i := range 1000 {
		key := strconv.Itoa(i)
		x, _ := p.Pick(nil, "", key)
		y, _ := q.Pick(nil, "", key)
		if x.ID() != y.ID() {
			t.Fatalf("two replicas place key %s on %s and %s", key, x.ID(), y.ID())
		}
	}
}
