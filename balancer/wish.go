package balancer

import (
	"fmt"
	"strings"
	"time"
)

// A Wish is what the operator wants of a backend, whatever its health: the state that it
// is to have at most, and its weight. The zero value means that no wish was ever made: the
// backend serves.
type Wish struct {
	State  State         // Up: serve; Draining: see [Pool.Drain]; Down: see [Pool.Off]
	Since  time.Time     // when State and Within were wished, perhaps by the clock of another machine; zero, in SetWish: now
	Within time.Duration // of a drain; 0: without a deadline
	Weight int           // see [Pool.SetWeight]; 0: the configured one
}

// Equal reports whether both wishes want the same since the same moment.
func (w Wish) Equal(other Wish) bool {
	return w.SameState(other) && w.Weight == other.Weight
}

// SameState reports whether both wishes want the same state since the same moment, with
// whatever weight.
func (w Wish) SameState(other Wish) bool {
	return w.State == other.State && w.Within == other.Within && w.Since.Equal(other.Since)
}

// Wish returns what the operator wants of the backend. A drain is still a drain after its
// deadline, until Undrain or Off. It costs one atomic load.
func (b *Backend) Wish() Wish {
	if w := b.wish.Load(); w != nil {
		return *w
	}
	return Wish{}
}

// Drain makes a backend lose its clients. It takes no new ones, each pinned client stays
// until its [Turn] within this time, and at the end of it the backend goes Down. A within
// of 0 sets no deadline: pinned clients stay until they leave by themselves. A second
// Drain starts anew. The weight stays. It is an error if the pool has no backend with this
// ID, or if within is below a millisecond, which is a number whose unit was forgotten.
func (p *Pool) Drain(id string, within time.Duration) error {
	if 0 < within && within < time.Millisecond {
		return fmt.Errorf("balancer: drain of backend %s within %v: a number without a unit counts nanoseconds; want 5*time.Minute, say, or 0 for no deadline", id, within)
	}
	return p.rewish(id, func(w Wish) Wish { return Wish{State: Draining, Within: within, Weight: w.Weight} })
}

// Off puts a backend Down at once, whatever the half rule of [Backend.Lost] says. The
// weight stays. It is an error if the pool has no backend with this ID.
func (p *Pool) Off(id string) error {
	return p.rewish(id, func(w Wish) Wish { return Wish{State: Down, Weight: w.Weight} })
}

// Undrain takes back a Drain or an Off: the backend's state depends only on its health
// again. The weight stays. It is an error if the pool has no backend with this ID.
func (p *Pool) Undrain(id string) error {
	return p.rewish(id, func(w Wish) Wish { return Wish{Weight: w.Weight} })
}

// SetWeight changes the backend's share of new clients, from 1 to [MaxWeight]; 0 goes back
// to the configured weight. The backend's state, a drain of it, its connections and its
// counters stay as they are, and so do the clients that are pinned to it. Clients that an
// affinity such as a hash places anew with each request aren't pinned: so many of them move
// to or from the backend that its share fits its weight again, and no others. To send a
// backend no new clients at all, drain it. It is an error if the pool has no backend with
// this ID.
func (p *Pool) SetWeight(id string, weight int) error {
	return p.rewish(id, func(w Wish) Wish {
		w.Weight = weight
		return w
	})
}

// SetWish carries out a whole wish, as [Pool.Drain], [Pool.Off], [Pool.Undrain] and
// [Pool.SetWeight] carry out their part of one. A drain that began elsewhere has the same
// turns and the same end here, as far as the clocks agree. If its end has passed, the
// backend goes Down at once. If its beginning is in the future, it begins now.
func (p *Pool) SetWish(id string, w Wish) error {
	return p.rewish(id, func(Wish) Wish { return w })
}

// rewish carries out what change makes of the backend's wish.
func (p *Pool) rewish(id string, change func(Wish) Wish) error {
	return p.operate(id, func(b *Backend, c *Change) error {
		old := b.Wish()
		w := change(old)
		if err := w.validate(id); err != nil {
			return err
		}
		if w.Since.IsZero() {
			w.Since = time.Now()
		}
		c.told = !w.Equal(old)
		c.Why = w.why(old, b.ConfiguredWeight())
		b.wish.Store(&w)
		b.setWeight(w.Weight)
		p.want(b, c.Why)
		return nil
	})
}

// Wanted returns what counts: the operator's wish if that drains the backend or puts it
// Down, and otherwise what the backend's [Source] wants, see [Target]. The weight is the
// operator's. It costs one atomic load.
func (b *Backend) Wanted() Wish {
	if w := b.wanted.Load(); w != nil {
		return *w
	}
	return Wish{}
}

// want derives what is wanted of b after the operator's wish or the source's has changed,
// and puts it into effect. The caller holds the mutex.
func (p *Pool) want(b *Backend, why string) {
	old, w := b.Wanted(), b.Wish()
	if b.asked != nil && w.State == Up {
		w.State, w.Since, w.Within = b.asked.State, b.asked.Since, b.asked.Within
	}
	b.wanted.Store(&w)
	if !w.SameState(old) { // else a drain goes on
		p.begin(b, w)
		b.offWhy, b.emptyTold = why, false
	}
}

func (w Wish) validate(id string) error {
	if w.State < Up || w.State > Down {
		return fmt.Errorf("balancer: wish for backend %s: no %v", id, w.State)
	}
	if w.State == Draining && w.Within < 0 {
		return fmt.Errorf("balancer: drain of backend %s within %v: want a positive time, or 0 for no deadline", id, w.Within)
	}
	if w.State != Draining && w.Within != 0 {
		return fmt.Errorf("balancer: wish for backend %s: Within is %v, but only a drain has a deadline", id, w.Within)
	}
	return validWeight(id, w.Weight)
}

// why says what the wish changes of the old one.
func (w Wish) why(old Wish, configured int) string {
	var parts []string
	serves := w.State == Up && old.State == Up
	if w.Weight == old.Weight || !serves && !w.SameState(old) {
		parts = append(parts, [...]string{Up: "serve", Draining: "drain", Down: "off"}[w.State])
	}
	switch {
	case w.Weight == old.Weight:
	case w.Weight == 0:
		parts = append(parts, fmt.Sprintf("weight %d as configured", configured))
	default:
		parts = append(parts, fmt.Sprintf("weight %d", w.Weight))
	}
	return "operator: " + strings.Join(parts, ", ")
}

// begin puts the state of w into effect, in place of that of the wish before.
func (p *Pool) begin(b *Backend, w Wish) {
	b.drain.Load().stop()
	b.off = w.State == Down
	var d *drain
	if w.State == Draining {
		d = &drain{start: w.Since, within: w.Within}
		if now := time.Now(); d.start.After(now) {
			d.start = now
		}
		if w.Within > 0 {
			left := time.Until(d.start.Add(w.Within))
			d.timer = time.AfterFunc(left, func() { p.deadline(b, d) })
			b.off = left <= 0
		}
	}
	b.drain.Store(d)
}

// deadline puts a backend Down at the end of its drain, unless d was replaced.
func (p *Pool) deadline(b *Backend, d *drain) {
	p.mu.Lock()
	defer p.unlock()
	if b.drain.Load() == d { // else the operator made another wish while the timer fired
		b.off, b.offWhy = true, "end of the drain"
		p.settle(&Change{Backend: b, Why: b.offWhy})
	}
}
