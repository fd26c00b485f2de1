package balancer

import (
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Candidates are a set of backends that rendezvous hashing and the pickers choose
// from. It never changes once it is made.
type candidates struct {
	backends []*Backend
	seeds    []uint64  // of the backends, side by side for the loop's sake
	weights  []float64 // nil if all are equal
}

func newCandidates(backends []*Backend) candidates {
	f := candidates{backends: backends, seeds: make([]uint64, len(backends))}
	equal := true
	for i, b := range backends {
		f.seeds[i] = b.seed
		equal = equal && b.weight == backends[0].weight
	}
	if !equal {
		f.weights = make([]float64, len(backends))
		for i, b := range backends {
			f.weights[i] = float64(b.weight)
		}
	}
	return f
}

// place returns where a key belongs among the backends that aren't tried, nil
// if none is left. It is weighted rendezvous hashing (Thaler and Ravishankar,
// 1998; weights by Schindelhauer and Schomaker, 2005): each backend has a score
// for the key that depends on nothing but the two, and the best one wins, so
// that a backend that leaves moves only the keys that it had. It depends on the
// set of backends, not on their order.
func (f *candidates) place(key string, tried []*Backend) *Backend {
	h := xxhash.Sum64String(key)
	if f.weights != nil {
		return f.placeWeighted(h, tried)
	}
	var best uint64
	var at *Backend
	for i, seed := range f.seeds {
		if s := mix(h ^ seed); (s > best || at == nil) && !slices.Contains(tried, f.backends[i]) {
			best, at = s, f.backends[i]
		}
	}
	return at
}

// placeWeighted scores with -weight/ln(u), u being the mixed hash as a fraction:
// the chance to be the best is in proportion to the weight. Among equal weights
// it grows with the hash, so that it agrees with what place does for those.
func (f *candidates) placeWeighted(h uint64, tried []*Backend) *Backend {
	var best float64
	var at *Backend
	for i, seed := range f.seeds {
		u := (float64(mix(h^seed)>>11) + 0.5) / (1 << 53) // within 0 and 1, neither of them
		if s := -f.weights[i] / math.Log(u); (s > best || at == nil) && !slices.Contains(tried, f.backends[i]) {
			best, at = s, f.backends[i]
		}
	}
	return at
}

// mix makes each bit of the result depend on all bits of x. Without it the
// order of key hash xor seed over the backends would be almost the same for
// many keys. (The finalizer of MurmurHash3.)
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}
