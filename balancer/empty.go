package balancer

import "time"

// idle is called when nothing is in flight at the backend any more. If the operator waits
// for that, another goroutine reports it: End may be called with locks held that listeners
// need.
//
// No end is missed: a wish, and the Down of its deadline, are stored before the number in
// flight is looked at, and here it is the other way round.
func (b *Backend) idle() {
	w := b.wanted.Load()
	if w == nil || w.State == Up || w.State == Draining && w.Within > 0 && b.State() != Down {
		return
	}
	if p := b.pool.Load(); p != nil {
		go p.reportEmpty(b)
	}
}

// reportEmpty reports that the last request or tunnel at b has ended, unless that isn't
// worth it any more.
func (p *Pool) reportEmpty(b *Backend) {
	p.mu.Lock()
	defer p.unlock()
	w, state := b.Wanted(), b.State()
	repeat := b.emptyTold
	if w.State == Draining && w.Within == 0 {
		b.emptyTold = false // it is told each time
	}
	if b.emptied() {
		p.changes = append(p.changes, Change{Time: time.Now(), Backend: b, From: state, To: state, Was: w, Empty: true, Why: "the last in flight has ended", repeat: repeat})
	}
	b.emptyTold = b.emptyTold || repeat
}

// emptied reports whether the backend is empty as the operator wishes, for the first time.
// The pool's mutex is held.
func (b *Backend) emptied() bool {
	w := b.Wanted()
	left := w.State == Down || w.State == Draining && (b.off || w.Within == 0)
	if !left || b.emptyTold || b.InFlight() > 0 {
		return false
	}
	b.emptyTold = true
	return true
}
