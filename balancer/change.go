package balancer

import (
	"context"
	"log/slog"
	"slices"
)

// A Change is one step in a backend's life. From and To are equal when only the
// operator's wish changed or was wished again, when a backend that is Down already is removed, and
// when a Lost that the half rule held back closes.
type Change struct {
	Backend  *Backend
	From, To State
	Lost     bool   // its Lost has closed with this change
	Removed  bool   // from the pool
	Why      string // for people: the operator's wish, or what the check found

	wish bool // comes from the operator, and is told even if From and To are equal
}

// OnChange has f called for each change from now on, until stop is called. An
// added backend is told as one that comes from Down. Calls are made one at a
// time, in the order of the changes, outside of all locks, by a goroutine that
// made a change: f may use the pool, and should return soon. Stop doesn't wait
// for a call that is under way.
func (p *Pool) OnChange(f func(Change)) (stop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Never changed in place: notify reads it outside of the lock.
	p.listeners = append(slices.Clip(p.listeners), &f)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.listeners = slices.DeleteFunc(slices.Clone(p.listeners), func(l *func(Change)) bool { return l == &f })
	}
}

// settle draws the consequences after the facts about c.Backend, or its place in
// the pool, changed. The mutex is held.
func (p *Pool) settle(c *Change) {
	changed := c.Backend
	c.From, c.To = changed.State(), changed.derive()
	if c.To != Down && changed.lost() {
		changed.revive()
	}
	changed.state.Store(int32(c.To))

	// First the new picture, then the wakings: whoever is woken must not come back.
	s := p.now.Load()
	p.publish(s.byID, s.all)
	c.Lost = p.doomed(changed) || c.Removed && !changed.lost()
	if c.Lost {
		changed.life.Load().end(ErrLost)
	}
	if c.Removed {
		changed.remove(ErrLost)
	}
	if c.From != c.To || c.Lost || c.wish {
		p.changes = append(p.changes, *c)
	}
}

// doomed reports whether the Lost of a backend that is Down must close now: always
// when the operator put it there, else if the half rule lets it. A backend that
// has never come up counts as one of these.
func (p *Pool) doomed(b *Backend) bool {
	if b.State() != Down || b.lost() || b.off {
		return b.State() == Down && !b.lost()
	}
	all := p.now.Load().all
	room := len(all) / 2
	for _, other := range all {
		if other.State() == Down && !other.off && other.lost() {
			room--
		}
	}
	return room > 0
}

// derive returns the state that follows from the facts.
func (b *Backend) derive() State {
	switch {
	case b.off, b.Health() == Dead:
		return Down
	case b.drain.Load() != nil, b.Health() == Sick:
		return Draining
	}
	return Up
}

// unlock tells what changed and gives up the mutex, which is held. Changes that
// come up meanwhile, from other goroutines or from those who are told, are left
// to the one who tells already.
func (p *Pool) unlock() {
	defer p.mu.Unlock()
	if p.notifying {
		return
	}
	p.notifying = true
	defer func() { p.notifying = false }()
	for len(p.changes) > 0 {
		c := p.changes[0]
		p.changes = p.changes[1:]
		p.notify(c, p.listeners)
	}
}

// notify gives up the mutex while it tells.
func (p *Pool) notify(c Change, listeners []*func(Change)) {
	p.mu.Unlock()
	defer p.mu.Lock() // also when a listener panics
	level := slog.LevelInfo
	if c.Backend.Health() == Dead && !c.wish {
		level = slog.LevelWarn
	}
	p.log().LogAttrs(context.Background(), level, "backend changed",
		slog.String("backend", c.Backend.id), slog.String("from", c.From.String()), slog.String("to", c.To.String()),
		slog.Bool("lost", c.Lost), slog.String("why", c.Why))
	for _, f := range listeners {
		(*f)(c)
	}
}
