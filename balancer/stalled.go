package balancer

import "time"

const (
	// stalledAfter is how long a backend has answered nobody when it is stalled. On a busy
	// machine pauses that are shorter are common, and a backend that gets nobody for the
	// rest of a rush has too few clients for as long as these stay.
	stalledAfter = 500 * time.Millisecond

	// waitsApart is how long after a report the next one still belongs to it. A backend that
	// nobody asks meanwhile answers nobody either.
	waitsApart = stalledAfter + patienceMost

	// stalledFor is how long a backend is stalled if neither an answer nor a check ends it.
	stalledFor = 10 * time.Second
)

// Slow reports whether b is stalled, which means that it is picked last: see
// [Pool.ReportSlow].
func (b *Backend) Slow() bool { return b.stalled.Load() }

// ReportSlow reports that b has let a request wait since then for longer than it usually
// takes, and that the request wasn't to blame: it was the connection that took so long, or
// another backend has answered sooner. If b has answered other requests meanwhile it is only
// busy, and the report is ignored. Otherwise, while Run runs, b is checked at once.
//
// If requests that were reported wait for half a second or more, and b has answered nobody
// since the first of them, b is stalled: from now on it is picked last among the backends
// that are Up, for clients without home and key. Reports count anew after 1.5 seconds without
// one. When more than half of these backends are stalled or late (see [Pool.Pick]), none is
// picked last: all of them may just be busy, and the rest couldn't serve all clients.
//
// It ends when b answers a request, or with a good health check that comes a check's interval
// later or more. It ends after ten seconds in any case, since a check without a Path can't
// find out that a backend accepts connections and is silent, and Run may not run.
func (p *Pool) ReportSlow(b *Backend, since time.Time) {
	answered := b.answered.Load()
	if b.stalled.Load() || answered >= since.UnixNano() {
		return
	}
	select {
	case b.alarm <- struct{}{}:
	default:
	}
	now := time.Now().UnixNano()
	// Of two first reports at once either may count: they came at the same time.
	if b.waitsSince.Load() <= answered || now-b.waitsLast.Load() > int64(waitsApart) {
		b.waitsSince.Store(since.UnixNano())
	}
	b.waitsLast.Store(now)
	if now-b.waitsSince.Load() >= int64(stalledAfter) && p.stall(b) {
		p.log().Info("backend answers nobody: it is picked last until it answers, or a check is good", "backend", b.id, "usual", b.Usual())
	}
}

// answers notes that b answers a request. That is called for each answer.
func (b *Backend) answers() {
	b.answered.Store(time.Now().UnixNano())
	if b.stalled.Load() {
		b.pool.Load().unstall(b)
	}
}

// stall makes b stalled, and reports whether it wasn't yet.
func (p *Pool) stall(b *Backend) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.now.Load()
	if s.byID[b.id] != b || b.stalled.Load() {
		return false
	}
	b.stalledSince.Store(time.Now().UnixNano())
	b.stalled.Store(true)
	b.stalledEnd = time.AfterFunc(stalledFor, func() { p.unstall(b) })
	p.publish(s.byID, s.all)
	return true
}

// cleared is called after each good check. It ends that b is stalled, unless the check
// proves little: one that only connects, or one right after the report, when b would be
// picked first again at once and let the next client wait.
func (b *Backend) cleared() {
	if !b.stalled.Load() {
		return
	}
	p := b.pool.Load()
	if p.check.Path != "" && time.Now().UnixNano()-b.stalledSince.Load() >= int64(p.check.Interval) {
		p.unstall(b)
	}
}

// unstall ends that b is stalled.
func (p *Pool) unstall(b *Backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !b.stalled.Load() {
		return
	}
	b.stalled.Store(false)
	b.stalledEnd.Stop()
	s := p.now.Load()
	p.publish(s.byID, s.all)
}
