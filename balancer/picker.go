package balancer

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
)

// A Picker chooses a backend for a client that has no home and no key. Pick is called
// concurrently. From is never empty, holds only backends that may take new clients, and
// must not be changed. The pool passes the same slice until a backend's state or weight
// changes, or with [Pool.SetShares] one for each group, so that a picker may keep what it
// has computed for it. A picker that needs weights which fit together reads each once,
// since one may change meanwhile; it gets a new slice then. A nil result means that no
// backend is to serve this request.
type Picker interface {
	Pick(r *http.Request, from []*Backend) *Backend
}

// LeastConn picks the backend with the fewest requests and tunnels in flight in
// proportion to its weight, or one of these at random. It looks at all backends.
type LeastConn struct{}

// Pick implements [Picker].
func (*LeastConn) Pick(_ *http.Request, from []*Backend) *Backend {
	return leastLoaded(from, skip{})
}

// leastLoaded returns the least loaded backend that isn't passed over, nil if none is left.
func leastLoaded(from []*Backend, without skip) *Backend {
	var best *Backend
	var least float64
	if len(from) == 0 {
		return nil
	}
	// A random start breaks ties fairly enough without a second pass.
	start := rand.IntN(len(from))
	for i := range from {
		b := from[(start+i)%len(from)]
		if l := b.load(); (best == nil || l < least) && !without.has(b) {
			best, least = b, l
		}
	}
	return best
}

// Random picks a backend at random, in proportion to the weights.
type Random struct{ shares cached[shares] }

// Pick implements [Picker].
func (p *Random) Pick(_ *http.Request, from []*Backend) *Backend {
	s := p.shares.of(from, newShares)
	return from[s.at(rand.Uint64N(s.total()))]
}

// TwoChoices takes two different backends at random, in proportion to the weights, and
// picks the one with less in flight in proportion to its weight. That is nearly as even
// as [LeastConn], costs the same for a pool of any size, and doesn't send many clients
// that come at the same time all to the same backend.
type TwoChoices struct{ shares cached[shares] }

// Pick implements [Picker].
func (p *TwoChoices) Pick(_ *http.Request, from []*Backend) *Backend {
	if len(from) == 1 {
		return from[0]
	}
	s := p.shares.of(from, newShares)
	i := s.at(rand.Uint64N(s.total()))
	// Draw the second from what is left when the share of the first is cut out.
	x := s.start(i)
	w := s[i] - x
	y := rand.Uint64N(s.total() - w)
	if y >= x {
		y += w
	}
	if j := s.at(y); from[j].load() < from[i].load() {
		return from[j]
	}
	return from[i]
}

// shares are the sums of the weights up to and including each backend.
type shares []uint64

func newShares(from []*Backend, _ shares) shares {
	s := make(shares, len(from))
	var sum uint64
	for i, b := range from {
		sum += uint64(b.startWeight())
		s[i] = sum
	}
	return s
}

func (s shares) total() uint64 { return s[len(s)-1] }

// start returns where the share of the backend at index i begins.
func (s shares) start(i int) uint64 {
	if i == 0 {
		return 0
	}
	return s[i-1]
}

// at returns the index of the backend whose share contains x.
func (s shares) at(x uint64) int {
	i, _ := slices.BinarySearch(s, x+1)
	return i
}

// A cached keeps what was computed for the slices of backends that were used last. Without
// groups that is one.
type cached[T any] struct{ recent atomic.Pointer[[]computed[T]] }

type computed[T any] struct {
	from  []*Backend // also keeps its array from being reused for another slice
	value T
}

// maxCached is how many slices a cached knows: one for each group that can have a share.
const maxCached = maxShares

// of returns what compute returned for this slice, the same for all callers. Compute also gets
// the latest of the other values, a zero one if there is none.
func (c *cached[T]) of(from []*Backend, compute func(from []*Backend, latest T) T) T {
	for {
		known := c.recent.Load()
		var recent []computed[T]
		if known != nil {
			recent = *known
		}
		for i := range recent {
			if w := &recent[i]; len(w.from) == len(from) && &w.from[0] == &from[0] {
				return w.value
			}
		}
		var latest T
		if len(recent) > 0 {
			latest = recent[0].value
		}
		w := computed[T]{from, compute(from, latest)}
		next := append([]computed[T]{w}, recent[:min(len(recent), maxCached-1)]...)
		if c.recent.CompareAndSwap(known, &next) {
			return w.value
		}
		// Somebody else was faster: two turns of a RoundRobin at once would not be exact.
	}
}
