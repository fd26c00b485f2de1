package balancer

import (
	"fmt"
	"time"
)

// slowStartSteps is the number of steps in which a backend comes to its whole share. Each
// step is a new snapshot of the pool.
const slowStartSteps = 10

// A slowStart gives a backend a growing share of the new clients. The mutex of the pool
// guards it, apart from the backend's step, which pickers read.
type slowStart struct {
	cold  bool        // the backend was Down, and hasn't been Up since then
	timer *time.Timer // of the next step; nil if the backend has its whole share
}

// validSlowStart returns an error for a time that makes no sense.
func validSlowStart(d time.Duration) error {
	if d < 0 || unitless(d) {
		return fmt.Errorf("balancer: SlowStart is %v: want a time such as 30*time.Second, or 0 for none; a number without a unit counts nanoseconds", d)
	}
	return nil
}

// warm begins a slow start of b if it comes to be Up after it was Down, and ends one if b is
// Down. The caller holds the mutex, and publishes a snapshot after that.
func (p *Pool) warm(b *Backend, to State) {
	if p.slowStart == 0 {
		return
	}
	s := &b.start
	switch {
	case to == Down:
		if s.timer != nil {
			s.timer.Stop()
		}
		s.timer, s.cold = nil, true
	case to == Up && s.cold:
		s.cold = false
		b.step.Store(1)
		p.nextStep(b)
	}
}

// nextStep makes b's share grow after a step's time.
func (p *Pool) nextStep(b *Backend) {
	var timer *time.Timer
	timer = time.AfterFunc(p.slowStart/slowStartSteps, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if b.start.timer != timer {
			return // b went Down while the timer fired
		}
		b.start.timer = nil
		if b.step.Add(1) < slowStartSteps {
			p.nextStep(b)
		}
		s := p.now.Load()
		p.publish(s.byID, s.all)
	})
	b.start.timer = timer
}

// startWeight is the weight that pickers use, in tenths: during a slow start a part of
// Weight. It grows only before a new snapshot is published.
func (b *Backend) startWeight() int { return b.Weight() * int(b.step.Load()) }
