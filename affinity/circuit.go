package affinity

import (
	"sync/atomic"
	"time"
)

const (
	circuitTrips = 3                      // failures in a row that open it
	circuitPause = 250 * time.Millisecond // between two probes
)

// A circuit keeps calls away from a server that fails. It is safe for
// concurrent use and takes no lock.
//
//	state   failures         enter                                 left by
//	closed  < circuitTrips   always true                           fail, circuitTrips times in a row
//	open    >= circuitTrips  true for one call at a time, a probe  succeed
//
// While the circuit is open, next is the earliest time for a probe. enter moves
// next ahead by the time that the probe may take and circuitPause, so that no
// second probe starts meanwhile. fail moves it to circuitPause from now. abandon
// moves it back, so that the next call may probe at once.
type circuit struct {
	since    time.Time    // set before the first use; next is counted from it
	failures atomic.Int32 // in a row
	next     atomic.Int64 // if open: the earliest time for a probe
}

// open tells whether calls are kept away.
func (c *circuit) open() bool { return c.failures.Load() >= circuitTrips }

// enter tells whether a call may be made, which takes no longer than limit. If
// so, the caller owes one call of succeed, fail or abandon.
func (c *circuit) enter(limit time.Duration) bool {
	if !c.open() {
		return true
	}
	now, next := time.Since(c.since), c.next.Load()
	return int64(now) >= next && c.next.CompareAndSwap(next, int64(now+limit+circuitPause))
}

// succeed notes that a call succeeded, and tells whether that closed the
// circuit.
func (c *circuit) succeed() (closed bool) {
	return c.failures.Load() > 0 && c.failures.Swap(0) >= circuitTrips
}

// fail notes that a call failed, and tells whether that opened the circuit.
func (c *circuit) fail() (opened bool) {
	c.next.Store(int64(time.Since(c.since) + circuitPause))
	return c.failures.Add(1) == circuitTrips
}

// abandon notes that a call ended without a result because its caller gave up.
func (c *circuit) abandon() { c.next.Store(0) }
