package balancer

import (
	"math"

	"github.com/cespare/xxhash/v2"
)

// candidates are backends that rendezvous hashing and the pickers choose from. They are
// never changed.
type candidates struct {
	backends []*Backend
	quick    []*Backend // those that aren't picked last: see the function quick
	seeds    []uint64   // of the backends, side by side so that the loop over them is fast
	weights  []float64  // that count now; nil if all are equal
	groups   []group    // nil if groups don't matter
}

func newCandidates(backends []*Backend, shares map[string]int) candidates {
	c := candidates{
		backends: backends, quick: quick(backends), seeds: make([]uint64, len(backends)), weights: make([]float64, len(backends)),
		groups: newGroups(backends, shares),
	}
	equal := true
	for i, b := range backends {
		c.seeds[i], c.weights[i] = b.seed, float64(b.Weight())
		equal = equal && c.weights[i] == c.weights[0]
	}
	if equal {
		c.weights = nil
	}
	return c
}

// place returns the backend to which a key belongs, of those that aren't passed over, nil
// if none is left. It is weighted rendezvous hashing (Thaler and Ravishankar, 1998; weights
// by Schindelhauer and Schomaker, 2005): each backend has a score for the key, which
// depends on nothing but the two, and the highest score wins. So when a backend leaves,
// only its own keys move, and when its weight changes, only those that it gains or loses by
// that. The order of the backends doesn't matter.
func (c *candidates) place(key string, without skip) *Backend {
	h := xxhash.Sum64String(key)
	if c.weights != nil {
		return c.placeWeighted(h, without)
	}
	var best uint64
	var at *Backend
	for i, seed := range c.seeds {
		if s := mix(h ^ seed); (s > best || at == nil) && !without.has(c.backends[i]) {
			best, at = s, c.backends[i]
		}
	}
	return at
}

// placeWeighted uses scores that take the weights into account. With equal weights they grow
// with the hash, so that the result is that of place.
func (c *candidates) placeWeighted(h uint64, without skip) *Backend {
	var best float64
	var at *Backend
	for i, seed := range c.seeds {
		if s := score(mix(h^seed), c.weights[i]); (s > best || at == nil) && !without.has(c.backends[i]) {
			best, at = s, c.backends[i]
		}
	}
	return at
}

// score returns -weight/ln(u), where u is the mixed hash as a fraction: the chance of the
// highest score is in proportion to the weight.
func score(mixed uint64, weight float64) float64 {
	u := (float64(mixed>>11) + 0.5) / (1 << 53) // between 0 and 1, and neither of them
	return -weight / math.Log(u)
}

// mix makes each bit of the result depend on all bits of x. Without it the backends'
// scores, hash xor seed, would have almost the same order for many keys. It is the
// finalizer of MurmurHash3.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}
