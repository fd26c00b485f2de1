package balancer

import (
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"time"
)

// Run checks the health of all backends until ctx ends, then waits for the
// checks under way and returns nil; what was found last stays. One goroutine a
// backend does it. The embedder starts Run, one at a time: a second one while the
// first runs returns an error.
func (p *Pool) Run(ctx context.Context) error {
	p.mu.Lock()
	if p.running {
		p.mu.Unlock()
		return errors.New("balancer: the pool runs already")
	}
	p.running = true
	p.unchecked.Store(false)
	p.checking = ctx
	for b := range p.All() {
		p.startChecks(b)
	}
	p.mu.Unlock()

	<-ctx.Done()
	p.mu.Lock()
	p.checking = nil
	p.mu.Unlock()
	p.checks.Wait()
	p.mu.Lock()
	p.running = false
	p.mu.Unlock()
	return nil
}

// Report tells that a real request could not reach b, or lost its connection
// before the answer. While Run runs, b is checked at once; reports that come
// together make one check, and such checks are at least a tenth of the interval
// apart. When the report was of a refused dial and that check gets no answer, b
// is dead at once, whatever Fall says. Report never waits.
func (p *Pool) Report(b *Backend, err error) {
	if err == nil || localFault(err) {
		return
	}
	if p.unchecked.Load() {
		p.warnUnchecked(p.check.Interval)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		b.refused.Store(true)
	}
	select {
	case b.alarm <- struct{}{}:
	default:
	}
}

// startChecks starts the checks of b if Run runs. They end with Run or with the
// removal of b. The mutex is held.
func (p *Pool) startChecks(b *Backend) {
	if p.checking == nil {
		return
	}
	ctx, cancel := context.WithCancel(p.checking)
	b.stopChecks = cancel
	p.checks.Go(func() {
		defer cancel()
		p.checkUntil(ctx, b)
	})
}

// checkUntil checks b until ctx ends.
func (p *Pool) checkUntil(ctx context.Context, b *Backend) {
	b.refused.Store(false) // as reported before anybody checked
	interval := p.check.Interval
	var last time.Time
	next := time.Now().Add(jitter(interval / 10))
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.alarm:
			if soon := last.Add(interval / 10); soon.Before(next) {
				next = soon
				timer.Reset(time.Until(next))
			}
			continue
		case <-timer.C:
		}
		last = time.Now()
		refused := b.refused.Swap(false)
		answered, err := p.check.ask(ctx, b)
		if ctx.Err() != nil {
			return
		}
		next = last.Add(interval - jitter(interval/10))
		timer.Reset(time.Until(next))
		if !answered && time.Since(last) >= p.check.Timeout && b.answered.Load() > last.UnixNano() {
			// The check got no answer in its time, but a request did: the
			// backend is busy and doesn't hang.
			timer.Reset(0)
			continue
		}
		if !localFault(err) && p.judge(b, answered, err, refused) {
			next = time.Now()
			timer.Reset(0)
		}
	}
}

func jitter(most time.Duration) time.Duration {
	return time.Duration(rand.Float64() * float64(most))
}

// warnUnchecked tells once that nobody runs the checks, if that is so for longer than
// late after the first Pick: until then Run may be about to start.
func (p *Pool) warnUnchecked(late time.Duration) {
	now := time.Now().UnixNano()
	if p.firstPick.CompareAndSwap(0, now) || now-p.firstPick.Load() <= int64(late) || !p.unchecked.CompareAndSwap(true, false) {
		return
	}
	all := "up"
	if p.startDown {
		all = "down"
	}
	p.log().Warn("nobody checks the backends' health, so all of them are taken to be " + all + " for ever: call go pool.Run(ctx), or serve with Gateway.Serve")
}

// localFault reports whether a failure to dial comes from this process or machine
// having run out of file descriptors or ports, which says nothing of the backend.
func localFault(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || exhausted(err)
}
