package balancer

import (
	"time"

	"github.com/cespare/xxhash/v2"
)

// A drain is the operator's wish that a backend loses its clients, as it is carried out.
type drain struct {
	start  time.Time     // the turns count from it: not in the future, unlike Wish.Since
	within time.Duration // 0: without a deadline
	timer  *time.Timer   // fires at the deadline; nil without one
}

func (d *drain) stop() {
	if d != nil && d.timer != nil {
		d.timer.Stop()
	}
}

// Turn returns the moment within a drain at which the client with this key leaves, as a
// fraction of at least 0 and less than 1: it leaves at start + within x Turn(key). It
// depends only on the key, so that all replicas agree. The turns of many keys are spread
// evenly, so that clients don't leave all at once.
func Turn(key string) float64 {
	// The seed makes turns independent of the backends that rendezvous hashing
	// gives to keys.
	const seed = 0x9e3779b97f4a7c15
	return float64(mix(xxhash.Sum64String(key)^seed)>>11) / (1 << 53)
}

// Keeps reports whether the backend still serves a client that is pinned to it with this
// key. A backend that is Up does, and one that is Down doesn't. A sick backend keeps its
// clients. One that the operator drains keeps each client until its [Turn], and a client
// without a key until the deadline; without a deadline it keeps them all.
func (b *Backend) Keeps(key string) bool {
	switch b.State() {
	case Up:
		return true
	case Down:
		return false
	}
	d := b.drain.Load()
	if d == nil || d.within == 0 {
		return true
	}
	turn := 1.0
	if key != "" {
		turn = Turn(key)
	}
	return time.Since(d.start) < time.Duration(turn*float64(d.within))
}
