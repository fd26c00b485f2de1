package balancer

import (
	"cmp"
	"net/http"
	"slices"
	"sync/atomic"
)

// RoundRobin picks the backends in turn, those with more weight more often. Their turns
// are spread evenly: weights 3, 1 and 1 give a a b c a, not a a a b c. It takes no lock.
type RoundRobin struct{ rounds cached[*round] }

// A round is the order of some backends, and whose turn it is.
type round struct {
	order []uint32 // indexes of backends
	turn  atomic.Uint64
}

// Pick implements [Picker].
func (p *RoundRobin) Pick(_ *http.Request, from []*Backend) *Backend {
	r := p.rounds.of(from, newRound)
	turn := r.turn.Add(1) - 1
	return from[r.order[turn%uint64(len(r.order))]]
}

// newRound returns a round that begins where the latest one stands. Each change in the pool
// would otherwise favour the first backend.
func newRound(from []*Backend, latest *round) *round {
	r := &round{order: schedule(from)}
	if latest != nil {
		r.turn.Store(latest.turn.Load())
	}
	return r
}

// schedule returns one round, as indexes of backends: each as often as its weight says,
// with its turns spread evenly.
func schedule(from []*Backend) []uint32 {
	// Weights such as 1000 and 999 would make a long round for little. They are
	// scaled down, but each backend keeps one turn.
	longest := float64(max(1024, 16*len(from)))
	weights := make([]int, len(from))
	var sum, divisor int
	for i, b := range from {
		weights[i] = b.startWeight()
		sum += weights[i]
		divisor = gcd(divisor, weights[i])
	}
	scale := min(1/float64(divisor), longest/float64(sum))

	type slot struct {
		at      float64 // position within the round, of 0 to 1
		backend uint32
	}
	var slots []slot
	for i, weight := range weights {
		n := max(1, int(float64(weight)*scale+0.5))
		for k := range n {
			slots = append(slots, slot{(float64(k) + 0.5) / float64(n), uint32(i)})
		}
	}
	slices.SortStableFunc(slots, func(a, b slot) int { return cmp.Compare(a.at, b.at) })
	order := make([]uint32, len(slots))
	for i, s := range slots {
		order[i] = s.backend
	}
	return order
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
