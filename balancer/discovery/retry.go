package discovery

import (
	"math/rand/v2"
	"time"
)

// A backoff is how long to wait between attempts that fail: from a second on twice as long
// each time, up to most, and by up to a fifth less, so that many processes don't come back
// at the same moment.
type backoff struct {
	most time.Duration
	last time.Duration
}

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, time.Second), b.most)
	return spread(b.last)
}

func (b *backoff) reset() { b.last = 0 }

// spread returns d, or up to a fifth less.
func spread(d time.Duration) time.Duration {
	return d - time.Duration(rand.Float64()*float64(d)/5)
}
