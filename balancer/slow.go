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

// slowFor is how long a backend is picked last if no health check can clear it.
const slowFor = 10 * time.Second

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
// if b usually takes more than a second, or if no backend is left that is Up, wasn't reported
// (see [Pool.ReportSlow]) unless b was reported too, and has room for the request or tunnel
// (see [Limit]): who leaves b then only waits elsewhere. Leave is nil, and Movable false.
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
	slow := b.slow.Load()
	for _, other := range c.backends {
		if other != b && (slow || !other.slow.Load()) && !without.has(other) {
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
// It takes no lock.
func (b *Backend) Took(d time.Duration) { b.begins.note(d) }

// Slow reports whether b is picked last: see [Pool.ReportSlow].
func (b *Backend) Slow() bool { return b.slow.Load() }

// ReportSlow reports that b has let a request wait since then for longer than it usually
// takes, and that the request wasn't to blame: it was the connection that took so long, or
// another backend has answered sooner. If b has answered other requests meanwhile it is only
// busy, and the report is ignored. Otherwise, while Run runs, b is checked at once.
//
// From now on b is picked last among the backends that are Up, for clients without home and
// key. When more than half of these backends were reported, none is: all of them may just be
// busy, and the rest couldn't serve all clients.
//
// It ends with a good health check that comes a check's interval later or more. It ends after
// ten seconds in any case, since a check without a Path can't find out that a backend accepts
// connections and is silent, and Run may not run.
func (p *Pool) ReportSlow(b *Backend, since time.Time) {
	if b.slow.Load() || b.answered.Load() >= since.UnixNano() || !p.markSlow(b) {
		return
	}
	p.log().Info("backend lets requests wait: it is picked last until a check is good", "backend", b.id, "usual", b.Usual())
	select {
	case b.alarm <- struct{}{}:
	default:
	}
}

// markSlow has b picked last, and reports whether it wasn't yet.
func (p *Pool) markSlow(b *Backend) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.now.Load()
	if s.byID[b.id] != b || b.slow.Load() {
		return false
	}
	b.slowSince.Store(time.Now().UnixNano())
	b.slow.Store(true)
	b.slowEnd = time.AfterFunc(slowFor, func() { p.clearSlow(b) })
	p.publish(s.byID, s.all)
	return true
}

// cleared is called after each good check. It ends that b is picked last, unless the check
// proves little: one that only connects, or one right after the report, when b would be
// picked first again at once and let the next client wait.
func (b *Backend) cleared() {
	if !b.slow.Load() {
		return
	}
	p := b.pool.Load()
	if p.check.Path != "" && time.Now().UnixNano()-b.slowSince.Load() >= int64(p.check.Interval) {
		p.clearSlow(b)
	}
}

// clearSlow ends that b is picked last.
func (p *Pool) clearSlow(b *Backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !b.slow.Load() {
		return
	}
	b.slow.Store(false)
	b.slowEnd.Stop()
	s := p.now.Load()
	p.publish(s.byID, s.all)
}

// quick returns the backends that aren't picked last, or all of them if those are fewer than
// half. Then it is likely that all are busy, as when all clients come back at once, and the
// few others would get all of them. It returns the slice itself if it can, for which pickers
// keep what they have computed.
func quick(backends []*Backend) []*Backend {
	slow := 0
	for _, b := range backends {
		if b.slow.Load() {
			slow++
		}
	}
	if slow == 0 || 2*slow > len(backends) {
		return backends
	}
	rest := make([]*Backend, 0, len(backends)-slow)
	for _, b := range backends {
		if !b.slow.Load() {
			rest = append(rest, b)
		}
	}
	return rest
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
