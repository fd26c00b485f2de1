package balancer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A Source knows which backends there are, and notices when that changes: see
// [Pool.Follow]. Package discovery has sources for DNS, for files and for Kubernetes.
//
// A source whose fields can be wrong may have a method Validate() error: Follow calls it
// first and returns its error. A source that has a method String() string is named so in
// the log, which must hold no secret.
type Source interface {
	// Watch calls update with all targets as soon as it knows them, and again when
	// something has changed, or may have, until ctx ends. While the source can't say
	// which targets there are, Watch calls update with the error instead, and goes on
	// trying, at a pace that suits the source. It doesn't call update concurrently, and
	// not after it has returned.
	Watch(ctx context.Context, update func(targets []Target, err error))
}

// A Target is a backend as a [Source] knows it.
type Target struct {
	ID     string // see [NewBackend]: it should stay the same for as long as the clients of the backend belong to it
	URL    string // see [NewBackend]: clients follow the ID to another URL
	Weight int    // the configured weight, see [NewBackend]; 0: 1
	Group  string // see [Backend.SetGroup]; "" for none

	// Draining says that the backend takes no new clients, and that those which it has
	// leave it within the time Within, as in [Pool.Drain]. A Within of 0 sets no
	// deadline: they stay.
	Draining bool
	Within   time.Duration

	// Grace is the time within which clients leave the backend after the source has
	// stopped naming it, unless it is Draining with a deadline already. 0 means 30 s. Below
	// zero they are lost at once.
	Grace time.Duration
}

// defaultGrace is what a Grace of 0 means. It outlasts a moment in which a source forgets a
// backend that is well.
const defaultGrace = 30 * time.Second

// maxTargets is how many targets a source may have, so that a source gone wild doesn't use
// up the memory. It is far beyond what one process can check each second.
const maxTargets = 10_000

// checkTargets reports why the targets can't be the backends of a pool.
func checkTargets(targets []Target) error {
	switch n := len(targets); {
	case n == 0:
		return errors.New("it names no backend")
	case n > maxTargets:
		return fmt.Errorf("it names %d backends, of which a pool takes %d at most", n, maxTargets)
	}
	ids := make(map[string]bool, len(targets))
	for _, t := range targets {
		switch {
		case ids[t.ID]:
			return fmt.Errorf("it names two backends with the ID %s", t.ID)
		case t.Within < 0:
			return fmt.Errorf("backend %s drains within %v: want a positive time, or 0 for no deadline", t.ID, t.Within)
		case unitless(t.Within) || unitless(t.Grace):
			return fmt.Errorf("backend %s drains within %v, with a grace of %v: a number without a unit counts nanoseconds; want 30*time.Second, say", t.ID, t.Within, t.Grace)
		}
		ids[t.ID] = true
	}
	return nil
}

// unitless reports whether d looks like a number whose unit was forgotten.
func unitless(d time.Duration) bool { return 0 < d && d < time.Millisecond }

// backend returns a new backend for the target. It may fail.
func (t *Target) backend() (*Backend, error) {
	b, err := NewBackend(t.ID, t.URL, t.Weight)
	if err != nil {
		return nil, err
	}
	return b, b.SetGroup(t.Group)
}

// asked returns what the source wants of a backend that it names, of which it has wanted old
// until now: nil if it may serve. A drain that goes on keeps its beginning.
func (t *Target) asked(old *Wish) *Wish {
	switch {
	case !t.Draining:
		return nil
	case old != nil && old.State == Draining && (old.Within == 0) == (t.Within == 0):
		return &Wish{State: Draining, Since: old.Since, Within: t.Within}
	}
	return &Wish{State: Draining, Since: time.Now(), Within: t.Within}
}

// askedGone returns what becomes of a backend that the source doesn't name any more.
func (t *Target) askedGone(old *Wish) *Wish {
	switch {
	case t.Grace < 0:
		return &Wish{State: Down, Since: time.Now()}
	case old != nil && old.State == Draining && old.Within > 0:
		return old
	}
	return &Wish{State: Draining, Since: time.Now(), Within: cmp.Or(t.Grace, defaultGrace)}
}

// enter adds b, of which its source wants asked, or nothing if that is nil. wish is what
// the operator wanted of the backend of the same ID that the pool had before.
func (p *Pool) enter(b *Backend, wish, asked *Wish) error {
	p.mu.Lock()
	defer p.unlock()
	if p.Get(b.id) == nil {
		p.inherit(b, wish, asked)
	}
	return p.add(b)
}

// inherit begins what is wanted of b, which isn't in the pool yet. The caller holds the
// mutex.
func (p *Pool) inherit(b *Backend, wish, asked *Wish) {
	why := "source: drain"
	if wish != nil {
		b.wish.Store(wish)
		b.setWeight(wish.Weight)
		if wish.State != Up {
			why = wish.why(Wish{Weight: wish.Weight}, b.ConfiguredWeight())
		}
	}
	b.asked = asked
	p.want(b, why)
}

// replace puts b in the place of old, which has the same ID. There is no moment at which the
// pool has neither or both. What the operator wants of old holds for b.
func (p *Pool) replace(old, b *Backend, asked *Wish) error {
	p.mu.Lock()
	defer p.unlock()
	if p.Get(old.id) != old {
		return fmt.Errorf("balancer: backend %s isn't in the pool any more", old.id)
	}
	s := p.now.Load()
	byID, all := maps.Clone(s.byID), slices.Clone(s.all)
	delete(byID, old.id)
	if err := p.own(byID, b); err != nil {
		return err
	}
	p.inherit(b, old.wish.Load(), asked)
	removal := &Change{Backend: old, Was: old.Wanted()}
	removal.remove("moved to " + b.url.String())
	b.state.Store(int32(Down)) // so that listeners see it come from Down
	b.start.cold = true
	all[slices.Index(all, old)] = b
	p.publish(byID, all)
	p.settle(removal)
	p.startChecks(b)
	p.settle(&Change{Backend: b, Why: "added", told: true})
	return nil
}

// ask puts into effect what the source of b wants of it: asked, nil to let it serve, and
// the configured weight.
func (p *Pool) ask(b *Backend, weight int, asked *Wish) {
	p.mu.Lock()
	defer p.unlock()
	same := asked == nil && b.asked == nil || asked != nil && b.asked != nil && asked.SameState(*b.asked)
	if weight = max(weight, 1); p.Get(b.id) != b || same && weight == b.ConfiguredWeight() {
		return
	}
	c := &Change{Backend: b, Was: b.Wanted(), told: true, Why: "source: serve"}
	switch {
	case same:
		c.Why = fmt.Sprintf("source: weight %d", weight)
	case asked != nil && asked.State == Draining:
		c.Why = "source: drain"
	case asked != nil:
		c.Why = "source: off"
	}
	b.configured.Store(int32(weight))
	b.setWeight(b.Wish().Weight)
	b.asked = asked
	p.want(b, c.Why)
	p.settle(c)
}
