package balancer

import "strconv"

// Health is what the checks say of a backend, whatever the operator wants.
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

// judge takes in what a check found, and reports whether it should be repeated
// at once.
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
	neverWell   bool // has never been well, and one good check is enough
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
