package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// Bounds of what Patience returns.
const (
	patienceLeast = 200 * time.Millisecond // a pause of the garbage collector is no reason to leave
	patienceMost  = time.Second            // a lost SYN is sent again after that
)

// Patience says how long a request waits for a backend before it is sent to another one.
// The zero value sets no limits.
type Patience struct {
	Connect time.Duration // for a new connection, with its TLS handshake; 0: the DialTimeout of the Transport
	Begin   time.Duration // for the first byte of the answer, once the request was sent; 0: no limit

	// Leave is called when Begin has passed, by the goroutine that waits. If it returns
	// false the request waits for as long again. nil means true.
	Leave func() bool

	// Movable says that [Transport.Release] may end the wait for the answer.
	Movable bool
}

// Patience returns how long a request of a client without home and key should wait for b
// before it is sent to another backend than b and those in tried. Both limits follow from
// what b usually takes, and are between 200 ms and one second. They are one second while
// nothing is known about b, and that for the answer is one second too if tried isn't
// empty, since the request may take longer than others everywhere. A limit is 0, for none,
// if b usually takes more than a second, or if no backend is left that is Up, isn't stalled
// (see [Pool.ReportSlow]) unless b is too, and has room for the request or tunnel (see
// [Limit]): who leaves b then only waits elsewhere. Leave is nil, and Movable false.
//
// The caller is to give up at most all attempts but the last, so that a request that takes
// long everywhere is answered.
func (p *Pool) Patience(b *Backend, tunnel bool, tried ...*Backend) Patience {
	if !p.now.Load().up.spare(b, skip{tried: tried, full: true, tunnel: tunnel}) {
		return Patience{}
	}
	begin := b.begins.patience()
	if len(tried) > 0 && begin > 0 {
		begin = patienceMost
	}
	return Patience{Connect: b.connects.patience(), Begin: begin}
}

// spare reports whether a new client can be sent to another backend than b at once.
func (c *candidates) spare(b *Backend, without skip) bool {
	delays := b.delays()
	for _, other := range c.backends {
		if other != b && (delays || !other.delays()) && !without.has(other) {
			return true
		}
	}
	return false
}

// Usual returns within which time b begins nearly all of its answers to short requests: the
// mean of the times that [Backend.Took] was told, and four times their deviation, both
// smoothed as TCP does for its round trips (RFC 6298, section 2). It is 0 while none is
// known. It costs one atomic load.
func (b *Backend) Usual() time.Duration { return b.begins.usual() }

// Took notes how long a request has waited until b began its answer. It should be called
// for requests that are alike and that a backend answers at once, and not for long polls.
// It takes no lock unless b is stalled, which ends with this answer: see [Pool.ReportSlow].
func (b *Backend) Took(d time.Duration) {
	b.begins.note(d)
	b.answers()
}

// A pace is how long something takes: the smoothed mean, in the upper 32 bits, and the
// smoothed deviation, both in microseconds. 0: nothing is known. Of two times that are
// noted at once one may be dropped.
type pace struct{ packed atomic.Uint64 }

func (p *pace) note(d time.Duration) {
	took := min(max(d.Microseconds(), 1), math.MaxUint32/4)
	mean, deviation := p.load()
	if mean == 0 {
		mean, deviation = took, took/2
	} else {
		off := took - mean
		deviation += (max(off, -off) - deviation) / 4
		mean = max(mean+off/8, 1)
	}
	p.packed.Store(uint64(mean)<<32 | uint64(deviation))
}

func (p *pace) load() (mean, deviation int64) {
	v := p.packed.Load()
	return int64(v >> 32), int64(v & math.MaxUint32)
}

func (p *pace) usual() time.Duration {
	mean, deviation := p.load()
	return time.Duration(mean+4*deviation) * time.Microsecond
}

// patience returns how long to wait for what has this pace, 0 for no limit.
func (p *pace) patience() time.Duration {
	switch usual := p.usual(); {
	case usual == 0:
		return patienceMost
	case usual > patienceMost:
		return 0
	default:
		return max(usual, patienceLeast)
	}
}
