package balancer

import (
	"errors"
	"strconv"
)

// Health is what the checks have found about a backend, whatever the operator wants.
type Health int32

const (
	Well Health = iota // answers as expected, or hasn't been checked
	Sick               // answers, but not as expected
	Dead               // doesn't answer
)

// String returns "well", "sick" or "dead".
func (h Health) String() string {
	switch h {
	case Well:
		return "well"
	case Sick:
		return "sick"
	case Dead:
		return "dead"
	}
	return "Health(" + strconv.Itoa(int(h)) + ")"
}

// judge updates b's health by what a check has found, and reports whether the check should
// be repeated at once. The goroutine that checks b calls it.
func (p *Pool) judge(b *Backend, answered bool, err error, refused bool) (again bool) {
	v := &b.vitals
	rise, fall := p.check.Rise, p.check.Fall
	if v.neverWell {
		rise = 1
	}
	if refused && !answered {
		fall = 1
	}
	v.alive.note(answered, rise, fall)
	v.fine.note(err == nil, rise, fall)
	v.neverWell = v.neverWell && err != nil
	v.wasWell = v.wasWell || err == nil

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
	if health == Sick && !v.wasWell {
		p.warnOfPage(b, err)
	}
	// If the half rule has kept the Lost of a dead backend open, each failed check
	// of that backend tries again to close it. Another backend that is back only
	// makes room for that.
	if health != b.Health() || health == Dead && !answered && !b.lost() {
		p.mu.Lock()
		b.health.Store(int32(health))
		b.sickWhy = why
		p.settle(&Change{Backend: b, Why: why})
		p.unlock()
	}
	return err != nil && (v.alive.on && v.alive.run == 1 || v.fine.on && v.fine.run == 1)
}

// warnOfPage warns once if a backend that no check has found well refuses the check with a
// status of the 400s. A page that a backend has lost is an ordinary failure, but one that it
// never had is a mistake in the Check. Statuses of the 500s may only mean that the backend
// is about to start.
func (p *Pool) warnOfPage(b *Backend, err error) {
	var answer *unexpected
	if !errors.As(err, &answer) || answer.code < 400 || answer.code > 499 || p.pageWarned.Swap(true) {
		return
	}
	p.log().Warn("a backend's health page has never been good, so that it takes new clients only when no other backend is up: set Check.Path to a page that it has, or Check.Expect to the statuses of a well backend",
		"backend", b.id, "err", err)
}

// vitals are what is known about a backend from its checks: whether it answers, and
// whether it answers as expected. Both follow the checks with some delay.
type vitals struct {
	alive, fine streak
	neverWell   bool // it was never well: one good check is enough
	wasWell     bool // a check has been good
	get         bool // checks use GET, since the backend doesn't support HEAD
}

// A streak is a fact that changes only after some checks in a row have contradicted it.
type streak struct {
	on  bool
	run int // number of checks in a row that have contradicted on
}

// note takes in the result of a check.
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
