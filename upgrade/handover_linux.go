package upgrade

import (
	"cmp"
	"errors"
	"syscall"
	"time"
)

// A frozenState is what was asked of a tunnel while it is frozen.
type frozenState struct {
	asked *parting // to close; the first one, with the shortest grace
	cut   bool
}

// close notes a call of the engine's close.
func (f *frozenState) close(code int, reason string, grace time.Duration) {
	if f.asked == nil {
		f.asked = &parting{code: code, reason: reason, grace: grace}
	}
	f.asked.grace = min(f.asked.grace, grace)
}

// freeze freezes the tunnel, which has that age, or returns nil if another process can't go on
// with it as it is.
func (t *loopTunnel) freeze(age time.Duration) *Frozen {
	t.loop.lock()
	defer t.loop.mu.Unlock()
	if !t.freezable() {
		return nil
	}
	t.activate()
	f := &Frozen{Tunnel: t.tunnel, Record: t.record(age).append(nil), Files: [2]int{int(t.fds[0]), int(t.fds[1])}, engine: t}
	t.frozen = &frozenState{}
	// A registration that is left behind would go with the socket: this process could not
	// remove it any more, and would be told of what comes there.
	for i := range t.fds {
		t.leaveEpoll(i)
		t.interest[i] = 0 // another process may have the socket too, from now on
	}
	t.loop.slots[t.slot] = nil // for events that were reported before
	if t.ending != nil {
		t.loop.due.set(t.ending, 0)
	}
	return f
}

// freezable reports whether another process can go on with the tunnel as it is now.
func (t *loopTunnel) freezable() bool {
	m := t.activeState
	switch {
	case t.gone, t.isSecure():
		return false
	case m == nil:
		return true
	case m.frozen != nil, m.senders != nil, m.flows[0].frames.stop != 0, m.flows[1].frames.stop != 0:
		return false
	}
	e := m.ending
	return e == nil || !e.closing && !e.waiting && e.lost == [2]bool{}
}

func (t *loopTunnel) isSecure() bool {
	return int(t.slot) < len(t.loop.secure) && t.loop.secure[t.slot] != [2]*secureEnd{}
}

// movable reports whether the tunnel can be frozen, now or when a Send has returned.
func (t *loopTunnel) movable() bool {
	t.loop.lock()
	defer t.loop.mu.Unlock()
	return !t.gone && !t.isSecure() && !t.closing()
}

// record returns the record of an active tunnel of that age.
func (t *loopTunnel) record(age time.Duration) *Record {
	now, opts := t.loop.now, &t.tunnel.opts // which doesn't change any more, but for Closed
	r := &Record{
		Group: opts.Group, Key: opts.Key, Turn: opts.Turn,
		websocket: t.websocket, jitter: float64(t.tunnel.ageJitter), age: age,
		silent: t.last.since(now), unspoken: t.spoken.since(now), full: max(0, t.pace.full-now),
	}
	if at, answered := t.asked(); at != 0 {
		r.asked, r.answered = max(1, now-at), answered
	}
	if t.stall != 0 {
		r.stalled = now - t.stall
	}
	for i := range t.flows {
		f := &t.flows[i]
		r.flows[i] = flowRecord{frames: f.frames, bytes: f.bytes, fin: f.fin}
		if f.pending != nil {
			r.flows[i].wait, r.flows[i].fed = f.pending.b, f.pending.fed
		}
	}
	if t.ending != nil {
		r.course = t.ending.record(now)
	}
	return r
}

// record returns the record of a course that isn't closing.
func (c *course) record(now time.Duration) *courseRecord {
	r := &courseRecord{
		phases: c.phases, ended: c.ended, closeSeen: c.closeSeen, known: c.known,
		by: c.cause.By, closeCode: c.cause.Code, reason: c.cause.Reason,
		quiet: c.quiet, quietly: c.quietBy != 0, quietIn: max(0, c.quietBy-now),
	}
	if c.cause.Err != nil {
		r.err = c.cause.Err.Error()
	}
	return r
}

// restore makes a course of r.
func (r *courseRecord) restore(websocket bool, now time.Duration) course {
	c := course{
		websocket: websocket, phases: r.phases, ended: r.ended, closeSeen: r.closeSeen, known: r.known,
		cause: Summary{By: r.by, Code: r.closeCode, Reason: r.reason}, quiet: r.quiet,
	}
	if r.err != "" {
		c.cause.Err = errors.New(r.err)
	}
	if r.quietly {
		c.quietBy = max(1, now+r.quietIn)
	}
	return c
}

// resume has a frozen tunnel go on.
func (t *loopTunnel) resume() {
	t.loop.lock()
	defer t.loop.mu.Unlock()
	f := t.frozen
	t.frozen = nil
	t.loop.slots[t.slot] = t
	switch {
	case f.cut:
		t.carryOut(nil, t.ensureEnding().cut(nil))
	case f.asked != nil:
		asked, answered := t.asked()
		t.carryOut(nil, t.ensureEnding().closeGracefully(t.loop.now, f.asked.grace, f.asked.code, f.asked.reason, asked, answered))
	}
	t.update()
}

// moved ends a frozen tunnel whose sockets another process has.
func (t *loopTunnel) moved() {
	t.loop.lock()
	defer t.loop.mu.Unlock()
	t.frozen = nil
	e := t.ensureEnding()
	e.known, e.cause = true, Summary{By: SideGateway, Err: ErrMoved}
	t.finish()
}

// adopt starts a loop, or has one go on, with a tunnel of another process.
func (e *loops) adopt(r *Record, files [2]int, tunnel *Tunnel) (engine, error) {
	loop, err := e.least()
	if err != nil {
		return nil, err
	}
	return loop.adopt(r, files, tunnel), nil
}

// adopt takes over a tunnel that least has counted already.
func (l *loop) adopt(r *Record, files [2]int, tunnel *Tunnel) *loopTunnel {
	l.lock()
	defer l.mu.Unlock()
	t := &loopTunnel{loop: l, tunnel: tunnel, fds: [2]int32{int32(files[0]), int32(files[1])}, websocket: r.websocket}
	l.place(t)
	t.last, t.spoken = stampOf(l.now-r.silent), stampOf(l.now-r.unspoken)
	if r.asked != 0 {
		q := questionAt(l.now - r.asked)
		if r.answered {
			q |= answered
		}
		l.asked[t.slot] = q
	}
	t.activate()
	if t.pace.Every != 0 {
		t.pace.full = l.now + r.full
	}
	if r.stalled != 0 {
		t.stall = cmp.Or(l.now-r.stalled, 1) // negative if that began before the loop
	}
	for i := range t.flows {
		f := &t.flows[i]
		limit, masked := f.frames.limit, f.frames.masked
		f.frames = r.flows[i].frames
		f.frames.limit, f.frames.masked = limit, masked
		f.bytes, f.fin = r.flows[i].bytes, r.flows[i].fin
		f.keep(r.flows[i].wait, r.flows[i].fed)
	}
	if r.course != nil {
		t.ending = &ending{tunnel: t, course: r.course.restore(r.websocket, l.now)}
	}
	t.update()
	if l.alarm == 0 {
		l.setAlarm()
	}
	return t
}

func closeFiles(files [2]int) {
	for _, fd := range files {
		syscall.Close(fd)
	}
}
