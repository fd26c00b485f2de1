package status

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// window is how many seconds of history there are.
	window = 60
	// recent is how many seconds the present rates are averages of.
	recent = 10
)

// A ring has what happened in each of the last seconds. Nothing has to run for it: the
// first request of a second puts a fresh element in the place of one that is ringSize
// seconds old. Elements that nobody has replaced are recognised by their number.
//
// An element is replaced and never reset, so that a request that still holds the old one
// counts into what nobody reads any more, and not into another second.
type ring [ringSize]atomic.Pointer[second]

const ringSize = 64 // a power of 2, and more than window

// A second has what happened in one second.
type second struct {
	number         int64        // of the second, counted from the beginning of the Handler
	answered, bad  atomic.Int32 // requests, and those of them whose answer was an error
	failed         atomic.Int32 // attempts without an answer
	opened, closed atomic.Int32 // tunnels
	delays         [delays]atomic.Int32
}

// at returns the element of a second, for counting.
func (r *ring) at(number int64) *second {
	p := &r[number%ringSize]
	for {
		s := p.Load()
		if s != nil && s.number >= number {
			return s
		}
		if fresh := (&second{number: number}); p.CompareAndSwap(s, fresh) {
			return fresh
		}
	}
}

// find returns the element of a second, or nil if nothing has happened in it.
func (r *ring) find(number int64) *second {
	if number < 0 {
		return nil
	}
	if s := r[number%ringSize].Load(); s != nil && s.number == number {
		return s
	}
	return nil
}

// A histogram counts times. Its buckets are a quarter of an octave wide, so that a quantile
// is at most an eighth off. The first one begins at firstDelay, and has all that is
// shorter; the last one has all above a minute.
type histogram [delays]int64

const (
	delays     = 4 * 22
	delayUnit  = 4 * time.Microsecond
	firstDelay = 4 * delayUnit
)

// bucket returns the bucket of d.
func bucket(d time.Duration) int {
	units := uint64(max(d, firstDelay) / delayUnit)
	octave := bits.Len64(units) - 3
	return min(octave*4+int(units>>octave)%4, delays-1)
}

// middle returns the time in the middle of bucket i.
func middle(i int) time.Duration {
	width := delayUnit << (i / 4)
	return time.Duration(4+i%4)*width + width/2
}

func (h *histogram) add(s *second) {
	for i := range s.delays {
		h[i] += int64(s.delays[i].Load())
	}
}

// quantile returns the time that a part q of all times doesn't exceed. ok is false if there
// are no times.
func (h *histogram) quantile(q float64) (d time.Duration, ok bool) {
	var all, sum int64
	for _, n := range h {
		all += n
	}
	for i, n := range h {
		if sum += n; n > 0 && float64(sum) >= q*float64(all) {
			return middle(i), true
		}
	}
	return 0, false
}
