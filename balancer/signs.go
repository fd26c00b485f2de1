package balancer

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/internal/pause"
)

// Signs are signs of life that a backend gives on connections which the pool's Transport
// doesn't know: tunnels.
type Signs struct {
	// Waiting is the number of connections on which something is waited for from the
	// backend: its kernel hasn't reported their end. A connection that nobody reads now
	// isn't one of them, as its end may have gone unnoticed.
	Waiting int

	// Heard is when the last byte came on one of them, zero if that isn't known.
	Heard time.Time
}

// OnUnanswered has f asked for signs of life when a check of a backend gets no answer, until
// stop is called. A [Gateway] of package middleware does so for its tunnels. While Waiting is
// above 0, f may be asked again some times within a tenth of a second. The goroutine that
// checks the backend waits for f, which may be called concurrently for different backends.
//
// A backend that lets the check wait until its timeout is not dead, but sick, if something was
// heard from it since the check began.
//
// A backend to which no connection can be made at all, as it is refused or broken off at once,
// is only sick while older connections wait for it: the kernel ends all connections of a dead
// process at once, so this one has closed its listener, or has no descriptors left, and goes
// on serving. If nothing is heard from it for 30 s it is dead nevertheless: its machine may
// have started again, and know nothing of them. (Socket.IO's servers send something every 25 s.)
//
// [Gateway]: https://pkg.go.dev/github.com/limpet-go/limpet/middleware#Gateway
func (p *Pool) OnUnanswered(f func(*Backend) Signs) (stop func()) {
	return listen(p, &p.witnesses, f)
}

const (
	// endTime is how long the connections of a process that is gone may take to end, and
	// the tunnels' engines to notice it.
	endTime = 100 * time.Millisecond
	// endStep is how long lives sleeps before it looks again whether they have ended.
	endStep = 10 * time.Millisecond
	// silence is how long a backend may be silent that turns its checks away.
	silence = 30 * time.Second
)

// lives reports whether b has given a sign of life, although its check, which began then, got
// no answer. The goroutine that checks b calls it.
func (p *Pool) lives(ctx context.Context, b *Backend, began time.Time, f finding) bool {
	s := p.signs(b)
	if f.late || unreachable(f.err) {
		return s.Heard.After(began)
	}
	for deadline := time.Now().Add(endTime); s.Waiting > 0 && time.Now().Before(deadline); s = p.signs(b) {
		if !pause.For(ctx, endStep) {
			return false
		}
	}
	return s.Waiting > 0 && b.vitals.moves(s.Heard, b.reads.Heard.Load(), began)
}

// signs returns the signs of life on all of b's connections.
func (p *Pool) signs(b *Backend) Signs {
	p.mu.Lock()
	witnesses := p.witnesses
	p.mu.Unlock()
	// Ended is loaded first: a read that ends in between counts as one that waits.
	ended := b.reads.Ended.Load()
	s := Signs{Waiting: int(b.reads.Begun.Load() - ended)}
	if at := b.answered.Load(); at > 0 {
		s.Heard = time.Unix(0, at)
	}
	for _, f := range witnesses {
		more := (*f)(b)
		s.Waiting += more.Waiting
		if more.Heard.After(s.Heard) {
			s.Heard = more.Heard
		}
	}
	return s
}

// sounds counts what was heard of b ever: the reads on its connections that have brought
// something.
func (b *Backend) sounds() int64 { return b.reads.Heard.Load() + b.heard.Load() }

// Heard counts what is heard of b on connections that the pool's Transport doesn't know, such
// as tunnels. Who serves them adds one for each read that has brought bytes which b may have
// just sent. A backend with open requests or tunnels (see [Backend.Begin]) that was heard all
// the time and falls silent is checked at once: see [Check].
func (b *Backend) Heard() *atomic.Int64 { return &b.heard }

// unreachable reports whether err says that nobody is at a backend's address. Its connections
// haven't ended then, but that says nothing.
func unreachable(err error) bool {
	return errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// moves reports whether a backend that turns its checks away, but whose connections haven't
// ended, still moves bytes. reads is the number of the Transport's reads that have brought
// something, and now the time. A backend that was alive may be silent from the first such
// check on; a dead one must have been heard since it died.
func (v *vitals) moves(heard time.Time, reads int64, now time.Time) bool {
	switch {
	case !v.alive.on:
		return heard.After(v.moved)
	case v.moved.IsZero() || reads != v.reads:
		v.moved = now
	case heard.After(v.moved):
		v.moved = heard
	}
	v.reads = reads
	return now.Sub(v.moved) < silence
}
