package balancer

import (
	"errors"
	"strconv"
	"time"
)

// Health is what the checks have found about a backend, and how it has treated requests (see
// [Outliers]), whatever the operator wants.
type Health int32

const (
	Well Health = iota // answers the checks as expected, or hasn't been checked
	Sick               // lives, but doesn't answer the checks as expected, or not at all, or is ejected
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

// A finding is what one check has found about a backend.
type finding struct {
	answered bool  // the backend sent anything, or accepted the connection if no more is checked
	err      error // why it isn't well, nil if it is
	lives    bool  // it answered, or gave another sign of life while it let the check wait
	late     bool  // nothing came until the check's timeout
	refused  bool  // a request's dial was refused since the check before
}

// judge changes what the checks have found about b by the result of one, and reports whether
// the check should be repeated at once. It is the only place that does, by this table, and
// diagnose makes b's health of it. Fall and Rise are numbers of checks in a row.
//
//	finding             Well                Sick                Dead
//	------------------  ------------------  ------------------  ------------------
//	as expected         Well                Well after Rise     Well after Rise
//	answered otherwise  Sick after Fall     Sick                Sick after Rise
//	late, lives         Sick*  after Fall   Sick*               Sick*  after Rise
//	turned away, lives  Sick after Fall     Sick                Sick after Rise
//	unanswered          Dead after Fall     Dead after Fall     Dead
//
// A check is late if nothing came until its timeout. Turned away, it was refused or broken off
// before. Sick* is sick for lateness only, which holds until a check is answered or turned
// away and the backend is still sick; a check as expected doesn't change it before Rise.
// Such a backend gets new clients like one that is Up while more than half of those that
// are Up or Sick* delay: see takers.
//
// An unanswered check says that the backend takes no new connections, or not in time: it
// gets no new clients. Only if it gives no other sign of life is it taken to be dead, since
// that ends its tunnels and sends its clients elsewhere: a health page that hangs, or a
// backend that is busy, out of descriptors or has closed its listener, must not do that. See
// OnUnanswered for what counts as a sign of life.
//
// Fall is 1 for an unanswered check if a request's dial was refused since the check before:
// that are two failures already. Rise is 1 until a backend was well for the first time.
// The goroutine that checks b calls judge.
func (p *Pool) judge(b *Backend, f finding) (again bool) {
	v := &b.vitals
	rise, fall := p.check.Rise, p.check.Fall
	if v.neverWell {
		rise = 1
	}
	if f.refused && !f.answered {
		fall = 1
	}
	well := f.err == nil
	alive := v.alive.on
	v.alive.note(f.lives, rise, fall)
	switch {
	case !v.alive.on && alive:
		v.moved = time.Now()
	case v.alive.on && f.answered:
		v.moved = time.Time{}
	}
	v.fine.note(well, rise, fall)
	v.neverWell = v.neverWell && !well
	v.wasWell = v.wasWell || well

	health := Well
	switch {
	case !v.alive.on:
		health = Dead
	case !v.fine.on:
		health = Sick
	}
	if health == Sick && !v.wasWell {
		p.warnOfPage(b, f.err)
	}
	late := health == Sick && (f.late || well && b.foundLate)
	// If the half rule has kept the Lost of a dead backend open, each failed check
	// of that backend tries again to close it. Another backend that is back only
	// makes room for that.
	if health != b.found || late != b.foundLate || health == Dead && !f.lives && !b.lost() {
		p.mu.Lock()
		b.found, b.foundWhy, b.foundLate = health, f.why(), late
		b.diagnose()
		p.settle(&Change{Backend: b, Why: b.foundWhy})
		p.unlock()
	}
	return !well && (v.alive.on && v.alive.run == 1 || v.fine.on && v.fine.run == 1)
}

// diagnose derives b's health from both kinds of facts, what the checks have found and whether
// b is ejected:
//
//	checks        not ejected  ejected
//	------------  -----------  --------------------------------------
//	found Well    Well         Sick
//	found Sick    Sick         Sick
//	found Dead    Dead         Dead, and it isn't ejected any more
//
// The caller holds the mutex, and calls settle.
func (b *Backend) diagnose() {
	health := b.found
	b.sickWhy = b.foundWhy
	switch {
	case health == Dead:
		b.ejection.end()
	case health == Well && b.ejection.timer != nil:
		health, b.sickWhy = Sick, b.ejection.why
	}
	b.health.Store(int32(health))
	b.late.Store(health == Sick && b.foundLate && b.ejection.timer == nil)
}

// why says what was found, for people to read.
func (f finding) why() string {
	switch {
	case f.err == nil:
		return "check: well"
	case f.lives && !f.answered:
		return "check: " + f.err.Error() + ", but it goes on serving its clients"
	}
	return "check: " + f.err.Error()
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

// vitals are what is known about a backend from its checks: whether it lives, and whether
// it answers as expected. Both follow the checks with some delay.
type vitals struct {
	alive, fine streak
	neverWell   bool // it was never well: one good check is enough
	wasWell     bool // a check has been good

	// While it turns the checks away, see moves:
	moved time.Time // when something was heard of it last, or it died; zero if it answered the last check
	reads int64     // how many of the Transport's reads had brought something then
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
