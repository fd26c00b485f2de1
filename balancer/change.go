package balancer

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// A Change is a change of a backend that [Pool.OnChange] reports. From and To are equal
// when only the operator's wish changed or was repeated, a weight among them, when only Empty
// is to be told, when a backend is added or removed that is Down, and when a Lost closes that
// the half rule had kept open (see [Backend.Lost]).
type Change struct {
	Time     time.Time
	Backend  *Backend
	From, To State
	Was      Wish   // what was wanted before this change; Backend.Wanted is that of now
	Lost     bool   // the backend's Lost has closed with this change
	Removed  bool   // the backend was removed from the pool
	Why      string // the operator's wish, the source's, or what the check found, for people to read

	// Empty is set once for each drain and each Off, the source's too, when the backend
	// keeps nobody any more, since it is off or past the drain's deadline, and nothing is
	// in flight at it. That may be with the change that the wish or the deadline makes, or
	// later, when the last request or tunnel ends. A drain without a deadline keeps its
	// clients for ever: there Empty is set each time when the last of what was in flight
	// ends, but the pinned clients that poll may come back. A request that was sent to the
	// backend a moment before may always begin yet; it is sent elsewhere if the backend is
	// gone.
	Empty bool

	told   bool // even if From and To are equal: the operator, or the embedder, has made the change
	repeat bool // only Empty has changed, and not for the first time since the wish
}

// OnChange calls f for each change from now on, until stop is called. A backend that is
// added is reported as a change from Down. The calls are made one at a time, in the order
// of the changes and without a lock, by a goroutine that has made a change: f may use the
// pool, and should return soon. Stop doesn't wait for a call that is under way.
func (p *Pool) OnChange(f func(Change)) (stop func()) {
	return listen(p, &p.listeners, f)
}

// listen adds f to a list of functions that are called when something happens, until stop is
// called. The list is never changed in place, since its readers hold the mutex only while
// they load it.
func listen[F any](p *Pool, list *[]*F, f F) (stop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*list = append(slices.Clip(*list), &f)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		*list = slices.DeleteFunc(slices.Clone(*list), func(l *F) bool { return l == &f })
	}
}

// settle derives the state of c.Backend after a fact about it, or its place in the pool,
// has changed. It publishes the state, closes Lost if that is due, and queues c for the
// listeners. The caller holds the mutex.
func (p *Pool) settle(c *Change) {
	changed := c.Backend
	var why string
	c.Time, c.From = time.Now(), changed.State()
	c.To, why = changed.derive()
	if !c.told {
		c.Was = changed.Wanted()
	}
	if c.To != Down && changed.lost() {
		changed.revive()
	}
	changed.state.Store(int32(c.To))
	p.warm(changed, c.To)
	switch {
	case why != "":
	case c.From != c.To:
		why = c.Why
	default:
		why = changed.verdict.Load().Why
	}
	changed.note(why, c.Time)

	// Publish before Lost closes: a request that Lost ends is sent elsewhere at
	// once, and must not be sent here again.
	s := p.now.Load()
	p.publish(s.byID, s.all)
	if c.To != Up && changed.rooms != nil {
		changed.rooms.requests.wake(c.To == Down)
		changed.rooms.tunnels.wake(c.To == Down)
	}
	c.Lost = p.doomed(changed) || c.Removed && !changed.lost()
	if c.Lost {
		changed.life.Load().end(ErrLost)
	}
	if c.Removed {
		changed.remove(ErrLost)
	}
	c.Empty = changed.emptied()
	if c.From != c.To || c.Lost || c.Empty || c.told {
		p.changes = append(p.changes, *c)
	}
	p.panics()
}

// doomed reports whether the Lost of b must close now. It must when the operator has put
// b Down, and when health has and the half rule allows it. A backend that has never been
// up counts as lost in that rule.
func (p *Pool) doomed(b *Backend) bool {
	if b.State() != Down || b.lost() {
		return false
	}
	if b.off {
		return true
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

// derive returns the state that follows from the facts, see the table in the package's
// documentation, and the fact that it follows from, "" for a backend that is Up.
func (b *Backend) derive() (State, string) {
	switch {
	case b.off:
		return Down, b.offWhy
	case b.Health() == Dead:
		return Down, b.sickWhy
	case b.drain.Load() != nil:
		return Draining, b.offWhy
	case b.Health() == Sick:
		return Draining, b.sickWhy
	}
	return Up, ""
}

// unlock calls the listeners for the changes that are queued, and then releases the
// mutex, which the caller holds. If another goroutine is calling listeners already, or
// if this is a call from within a listener, unlock leaves the changes to that goroutine,
// so that they are reported one at a time and in order.
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

// notify logs a change and calls the listeners for it. It releases the mutex meanwhile.
func (p *Pool) notify(c Change, listeners []*func(Change)) {
	p.mu.Unlock()
	defer p.mu.Lock() // also when a listener panics
	level := slog.LevelInfo
	switch {
	case c.repeat:
		level = slog.LevelDebug // clients that poll would fill the log
	case c.Backend.Health() == Dead && !c.told:
		level = slog.LevelWarn
	}
	p.log().LogAttrs(context.Background(), level, "backend changed",
		slog.String("backend", c.Backend.id), slog.String("from", c.From.String()), slog.String("to", c.To.String()),
		slog.Bool("lost", c.Lost), slog.Bool("empty", c.Empty), slog.String("why", c.Why))
	for _, f := range listeners {
		(*f)(c)
	}
}
