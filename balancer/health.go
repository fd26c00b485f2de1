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
	p.idle.Store(false)
	p.watching = ctx
	for b := range p.All() {
		p.watch(b)
	}
	p.mu.Unlock()

	<-ctx.Done()
	p.mu.Lock()
	p.watching = nil
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
	if err == nil || ours(err) {
		return
	}
	if p.idle.Load() {
		p.warnIdle(p.check.Interval)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		b.refused.Store(true)
	}
	select {
	case b.alarm <- struct{}{}:
	default:
	}
}

// watch starts the checks of b if Run runs. They end with Run or with the
// removal of b. The mutex is held.
func (p *Pool) watch(b *Backend) {
	if p.watching == nil {
		return
	}
	ctx, cancel := context.WithCancel(p.watching)
	b.unwatch = cancel
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
		if !answered && time.Since(last) >= p.check.Timeout && b.heard.Load() > last.UnixNano() {
			// The check got no answer in its time, but a request did: the
			// backend is busy and doesn't hang.
			timer.Reset(0)
			continue
		}
		if !ours(err) && p.judge(b, answered, err, refused) {
			next = time.Now()
			timer.Reset(0)
		}
	}
}

func jitter(most time.Duration) time.Duration {
	return time.Duration(rand.Float64() * float64(most))
}

// judge takes in what a check found, and reports whether it should be repeated
// at once.
func (p *Pool) judge(b *Backend, answered bool, err error, refused bool) (again bool) {
	v := &b.vitals
	rise, fall := p.check.Rise, p.check.Fall
	if v.unseen {
		rise = 1
	}
	if refused && !answered {
		fall = 1
	}
	v.alive.note(answered, rise, fall)
	v.fine.note(err == nil, rise, fall)
	v.unseen = v.unseen && err != nil

	health, why := Well, "check: well"
	switch {
	case !v.alive.on:
		health = Dead
	case !v.fine.on:
		health = Sick
	}
	if err != nil {
		why = "check: " + err.Error()
	}
	// A dead one whose Lost the half rule held back is judged anew by each check
	// of its own that fails: that another is back only makes room.
	if health != b.Health() || health == Dead && !answered && !b.lost() {
		p.mu.Lock()
		b.health.Store(int32(health))
		p.settle(&Change{Backend: b, Why: why})
		p.unlock()
	}
	return err != nil && (v.alive.on && v.alive.run == 1 || v.fine.on && v.fine.run == 1)
}

// vitals are two facts that follow the checks with some delay: the backend
// answers, and it answers as expected.
type vitals struct {
	alive, fine streak
	unseen      bool // has never been well, and one good check is enough
	get         bool // is asked by GET, as it knows no HEAD
}

// A streak is a fact that changes only after some contrary findings in a row.
type streak struct {
	on  bool
	run int // of contrary findings
}

func (s *streak) note(good bool, rise, fall int) {
	if good == s.on {
		s.run = 0
		return
	}
	s.run++
	if s.on && s.run >= fall || !s.on && s.run >= rise {
		s.on, s.run = good, 0
	}
}
