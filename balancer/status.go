package balancer

import "time"

// A Status is what there is to say about a backend, for people and dashboards.
type Status struct {
	State  State
	Health Health
	Wish   Wish
	Since  time.Time // when the backend came to have State
	Why    string    // it has State: what the check found, or what the operator wishes

	Checked   time.Time     // the end of the last check; zero if there was none
	CheckTook time.Duration // that check
	CheckErr  error         // why that check found the backend not well, nil if it did; Health follows only after some checks in a row
}

// Status returns the backend's status. State, Health, Wish, Since and Why are of one moment
// and fit together. The last check is one that has been taken into account in them, or will
// be at once. It costs two atomic loads.
func (b *Backend) Status() Status {
	s := *b.verdict.Load()
	if c := b.checked.Load(); c != nil {
		s.Checked, s.CheckTook, s.CheckErr = c.at, c.took, c.err
	}
	return s
}

// checked is the result of a check.
type checked struct {
	at   time.Time // its end
	took time.Duration
	err  error
}

// note publishes the state that has been derived for a reason at some time, with the facts
// that it was derived from. The pool's mutex is held.
func (b *Backend) note(why string, at time.Time) {
	s := Status{State: b.State(), Health: b.Health(), Wish: b.Wish(), Since: at, Why: why}
	if old := b.verdict.Load(); old != nil && old.State == s.State {
		s.Since = old.Since
	}
	b.verdict.Store(&s)
}
