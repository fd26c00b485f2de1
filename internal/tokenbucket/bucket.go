// Package tokenbucket limits rates.
package tokenbucket

import "time"

// A Bucket holds tokens. Whoever takes them keeps the time at which their bucket will be full
// again, 0 at first: each token moves that by Every, and may not move it further than Burst
// ahead (the generic cell rate algorithm, ITU-T I.371). So one Bucket serves any number of
// clients, and each costs no more than that time. Times are counted from any moment that is
// the same for all. The zero Bucket limits nothing.
type Bucket struct {
	Every, Burst time.Duration
}

// New returns a bucket for a rate of tokens a second, of which burst may be taken at once. A
// rate of 0 is no limit.
func New(rate, burst int) Bucket {
	if rate == 0 {
		return Bucket{}
	}
	every := time.Second / time.Duration(rate)
	return Bucket{Every: every, Burst: every * time.Duration(burst)}
}

// Take takes a token of the bucket that will be full at *full, and returns 0 if there was
// one. Otherwise it returns in how long there will be one.
func (b Bucket) Take(full *time.Duration, now time.Duration) (wait time.Duration) {
	if b.Every == 0 {
		return 0
	}
	next := max(*full, now) + b.Every
	if next > now+b.Burst {
		return next - now - b.Burst
	}
	*full = next
	return 0
}
