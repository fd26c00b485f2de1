package balancer

import (
	"time"

	"github.com/cespare/xxhash/v2"
)

// A drain is the operator's wish that a backend loses its clients.
type drain struct {
	start  time.Time     // as the turns have it: not in the future, wherever it was wished
	within time.Duration // 0: without a deadline
	timer  *time.Timer   // ends it, nil without a deadline
}

func (d *drain) stop() {
	if d != nil && d.timer != nil {
		d.timer.Stop()
	}
}

// Turn returns the moment within a drain, at least 0 and less than 1, at which the
// client with this key leaves: at start + within x Turn(key). It depends on
// nothing but the key, so that all replicas agree, and spreads evenly over the
// keys, so that no deadline makes a crowd.
func Turn(key string) float64 {
	// The seed makes turns independent of where rendezvous hashing puts a key.
	const seed = 0x9e3779b97f4a7c15
	return float64(mix(xxhash.Sum64String(key)^seed)>>11) / (1 << 53)
}

// Keeps reports whether the backend still serves a client that is pinned to it
// with this key. Up it does, Down it doesn't. A sick backend keeps its clients.
// One that the operator drains keeps each until its [Turn]; a client without a
// key stays until the deadline, and without a deadline all stay.
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
