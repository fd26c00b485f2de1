package bus

import (
	"sync/atomic"
	"time"
)

// Durations tell how long calls took: a histogram with the bounds that [Durations.Bounds]
// returns. The zero value has no calls. It is no more safe for concurrent use than a number.
type Durations struct {
	// Counts are the numbers of calls: Counts[0] of those that took at most the first
	// bound, Counts[i] of those that took longer than the bound before and at most
	// bound i, and the last one of those that took longer than all bounds.
	Counts [len(durationBounds) + 1]int64
	// Sum is the time that all calls took together.
	Sum time.Duration
}

var durationBounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond,
}

// Bounds returns the upper bounds of all Counts but the last.
func (Durations) Bounds() []time.Duration {
	bounds := durationBounds
	return bounds[:]
}

// Add counts a call. It is for a bus of your own.
func (d *Durations) Add(took time.Duration) {
	d.Counts[durationIndex(took)]++
	d.Sum += took
}

// durationIndex returns where a call counts.
func durationIndex(took time.Duration) (i int) {
	for i < len(durationBounds) && took > durationBounds[i] {
		i++
	}
	return i
}

// durations count calls for Durations, concurrently.
type durations struct {
	counts [len(durationBounds) + 1]atomic.Int64
	sum    atomic.Int64
}

// since counts a call that began then and ends now.
func (d *durations) since(began time.Time) {
	took := time.Since(began)
	d.counts[durationIndex(took)].Add(1)
	d.sum.Add(int64(took))
}

// load returns what was counted until now.
func (d *durations) load() (all Durations) {
	for i := range d.counts {
		all.Counts[i] = d.counts[i].Load()
	}
	all.Sum = time.Duration(d.sum.Load())
	return all
}
