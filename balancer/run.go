package balancer

import (
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"time"
)

// Run checks the health of all backends until ctx ends, with a goroutine for each
// backend. Then it waits for the checks under way and returns nil. The backends keep the
// health that was found last. If Run is running already, it returns an error.
func (p *Pool) Run(ctx context.Context) error {
	p.mu.Lock()
	if p.running {
		p.mu.Unlock()
		return errors.New("balancer: the pool runs already")
	}
	p.running = true
	p.hasRun.Store(true)
	p.runs.Store(true)
	p.unchecked.Store(false)
	p.checking, p.began = ctx, time.Now()
	for b := range p.All() {
		p.startChecks(b)
	}
	p.mu.Unlock()

	<-ctx.Done()
	p.runs.Store(false)
	p.mu.Lock()
	p.checking = nil
	p.mu.Unlock()
	p.checks.Wait()
	p.mu.Lock()
	p.running = false
	p.mu.Unlock()
	return nil
}

// HasRun reports whether Run was ever called. Until then all backends have the health that
// they have begun with.
func (p *Pool) HasRun() bool { return p.hasRun.Load() }

// JudgeWithin returns how long it takes at most, after a Report, until the checks have found
// a backend dead that doesn't answer any more, if reports go on meanwhile.
func (p *Pool) JudgeWithin() time.Duration {
	c := p.check
	return c.Interval/10 + time.Duration(c.Fall)*(c.Interval/10+c.Timeout)
}

// Report reports that a request could not reach b, or lost its connection before the
// answer, with the error err. While Run runs, b is then checked at once. Several reports
// may cause one check, and such checks are at least a tenth of the interval apart. If a
// report was of a refused connection and the check gets no answer, b is dead at once,
// whatever Fall says. Errors that are the fault of this machine are ignored. Report never
// waits. It returns whether b will be checked: Run runs, and the error isn't ignored.
func (p *Pool) Report(b *Backend, err error) (checks bool) {
	if err == nil || localFault(err) {
		return false
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
	return p.runs.Load()
}

// startChecks starts the goroutine that checks b, if Run runs. It ends with Run or when b
// is removed. The caller holds the mutex.
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

// checkUntil checks b, in intervals, when a report asks for it and when b has fallen silent,
// until ctx ends.
func (p *Pool) checkUntil(ctx context.Context, b *Backend) {
	b.refused.Store(false) // reports from before the checks don't count
	interval, began := p.check.Interval, p.began
	check := &checker{Check: p.check, backend: b}
	defer check.close()
	var last time.Time
	fresh := false                             // the next check follows a failure
	after := interval/5 + jitter(interval*4/5) // until the second check: later ones are as far apart as these
	next := time.Now().Add(jitter(interval / 10))
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	look := newLooks(interval, b.sounds())
	for {
		timer.Reset(time.Until(look.before(next, began)))
		select {
		case <-ctx.Done():
			return
		case <-b.alarm:
			fresh = true
			if soon := last.Add(interval / 10); soon.Before(next) {
				next = soon
			}
			continue
		case <-timer.C:
			if time.Now().Before(next) && !look.silent(b.sounds(), b.InFlight()) {
				continue
			}
		}
		if ctx.Err() != nil {
			return // at the same moment
		}
		check.within = p.check.Timeout
		refused := b.refused.Swap(false)
		if p.check.Fall > 1 && !refused { // no verdict follows from this check alone
			check.within = look.patience(check.within, b.InFlight())
		}
		last = time.Now()
		f := check.ask(ctx, fresh || b.Slow())
		f.refused, fresh = refused, f.err != nil
		if ctx.Err() != nil {
			return
		}
		took := time.Since(last)
		b.checked.Store(&checked{time.Now(), took, f.err})
		next = began.Add(together(last.Add(after).Sub(began), interval))
		after = interval
		look.checked(b.sounds())
		if localFault(f.err) {
			continue
		}
		if f.err == nil {
			b.cleared()
		}
		f.late = !f.answered && took >= check.within
		f.lives = f.lives || p.lives(ctx, b, last, f)
		if p.judge(b, f) {
			next = time.Now()
		}
	}
}

// together returns a time at, counted from any moment that is the same for the whole pool,
// less a random part of up to 10% of the interval. It is rounded down to a multiple of a tenth
// of a second, or of that 10% if it is less: to wake this process costs more than a check, and
// checks that are due at the same moment wake it only once.
func together(at, interval time.Duration) time.Duration {
	step := min(interval/10, 100*time.Millisecond)
	return at.Truncate(step) - step*rand.N(interval/10/step+1)
}

func jitter(most time.Duration) time.Duration {
	return time.Duration(rand.Float64() * float64(most))
}

// warnUnchecked logs once that Run wasn't called, if more than late has passed since the
// first Pick. Until then Run may be about to start.
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

// localFault reports whether a dial failed because this process or machine has no file
// descriptor or port left, which says nothing about the backend.
func localFault(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || exhausted(err)
}
