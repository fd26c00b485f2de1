package balancer

import (
	"fmt"
	"time"
)

// A Wish is what the operator wants of a backend, whatever its health: the state that it
// is to have at most. The zero value means that no wish was ever made: the backend serves.
type Wish struct {
	State  State         // Up: serve; Draining: see [Pool.Drain]; Down: see [Pool.Off]
	Since  time.Time     // when the wish was made, perhaps by the clock of another machine; zero, in SetWish: now
	Within time.Duration // of a drain; 0: without a deadline
}

// Equal reports whether both wishes want the same since the same moment.
func (w Wish) Equal(other Wish) bool {
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

// SetWish carries out a wish, as [Pool.Drain], [Pool.Off] and [Pool.Undrain] do. A drain
// that began elsewhere has the same turns and the same end here, as far as the clocks
// agree. If its end has passed, the backend goes Down at once. If its beginning is in the
// future, it begins now.
func (p *Pool) SetWish(id string, w Wish) error {
	why := "operator: "
	switch w.State {
	case Up:
		why += "serve"
	case Draining:
		why += "drain"
	case Down:
		why += "off"
	default:
		return fmt.Errorf("balancer: wish for backend %s: no %v", id, w.State)
	}
	now := time.Now()
	if w.Since.IsZero() {
		w.Since = now
	}
	if w.State == Draining && w.Within < 0 {
		return fmt.Errorf("balancer: drain of backend %s within %v: want a positive time, or 0 for no deadline", id, w.Within)
	}
	return p.operate(id, why, func(b *Backend, c *Change) {
		c.wish = !w.Equal(b.Wish())
		b.wish.Store(&w)
		b.off = w.State == Down
		var d *drain
		if w.State == Draining {
			d = &drain{start: w.Since, within: w.Within}
			if d.start.After(now) {
				d.start = now
			}
			if w.Within > 0 {
				left := time.Until(d.start.Add(w.Within))
				d.timer = time.AfterFunc(left, func() { p.deadline(b, d) })
				b.off = left <= 0
			}
		}
		b.drain.Store(d)
	})
}

// deadline puts a backend Down at the end of its drain, unless d was replaced.
func (p *Pool) deadline(b *Backend, d *drain) {
	p.mu.Lock()
	defer p.unlock()
	if b.drain.Load() == d { // else the operator made another wish while the timer fired
		b.off = true
		p.settle(&Change{Backend: b, Why: "end of the drain"})
	}
}
