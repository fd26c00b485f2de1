package affinity

import (
	"sync/atomic"
	"time"
)

const (
	circuitTrips = 3                      // failures in a row that open it
	circuitPause = 250 * time.Millisecond // between two calls that probe
)

// A circuit keeps calls from something that fails. It opens after a few
// failures in a row. Then one call at a time is let through as a probe, which
// closes it by success. It is safe for concurrent use and takes no lock.
type circuit struct {
	since    time.Time    // set before the first use; all times are counted from it
	failures atomic.Int32 // in a row
	next     atomic.Int64 // if open: the earliest time for a probe
}

// enter tells whether a call may be made, which will take no longer than limit.
// If so, one of succeed, fail and abandon is owed.
func (c *circuit) enter(limit time.Duration) bool {
	if c.failures.Load() < circuitTrips {
		return true
	}
	now, next := time.Since(c.since), c.next.Load()
	return int64(now) >= next && c.next.CompareAndSwap(next, int64(now+limit+circuitPause))
}

// succeed notes that a call went well, and tells whether that closed the circuit.
func (c *circuit) succeed() (closed bool) {
	return c.failures.Load() > 0 && c.failures.Swap(0) >= circuitTrips
}

// fail notes that a call failed, and tells whether that opened the circuit.
func (c *circuit) fail() (opened bool) {
	c.next.Store(int64(time.Since(c.since) + circuitPause))
	return c.failures.Add(1) == circuitTrips
}

// abandon notes that a call ended without a result, for its caller's reasons.
func (c *circuit) abandon() { c.next.Store(0) }
