package upgrade

import (
	"os"
	"syscall"
	"time"
)

// loopTunnel is a tunnel on a loop, whose mu guards all of it. There are many that
// are at rest, between two messages with nothing under way: this is what such a
// one needs.
type loopTunnel struct {
	loop   *loop
	tunnel *Tunnel
	*activeState
	passed    [2]passed // each lane's, at rest
	last      time.Duration
	fds       [2]int32
	slot      int32
	interest  [2]uint8 // what epoll waits for
	gone      bool     // both are closed
	websocket bool
}

type passed struct{ bytes, messages int64 }

// moving is the rest of a tunnel. One that is at rest has none.
type activeState struct {
	flows   [2]loopFlow // by direction
	ending  *ending     // nil while nothing has ended
	senders *sender     // those who wait for their turn or are at it
}

// move ends a tunnel's rest, until review.
func (t *loopTunnel) activate() {
	if t.activeState != nil {
		return
	}
	m := t.loop.spare
	if t.loop.spare = nil; m == nil {
		m = &activeState{}
	}
	for i, passed := range t.passed {
		dir := direction(i)
		f := t.tunnel.proxy.frames(t.websocket, dir.from())
		f.messages = passed.messages
		m.flows[i] = loopFlow{dir: dir, frames: f, bytes: passed.bytes}
	}
	t.activeState = m
}

// rest lets go of what is only needed while something is under way, if nothing is.
func (t *loopTunnel) deactivate() {
	m := t.activeState
	if m.ending != nil || m.senders != nil {
		return
	}
	for i := range m.flows {
		f := &m.flows[i]
		if f.pending != nil || t.websocket && !f.frames.between() {
			return
		}
		t.passed[i] = passed{f.bytes, f.frames.messages}
	}
	t.activeState, t.loop.spare = nil, m
}

// ending is what a tunnel has from the first event of its course on.
type ending struct {
	course
	tunnel *loopTunnel
	at     time.Duration // the first deadline, 0 for none
	index  int           // among the deadlines
}

// begin writes what comes first. loop.mu is held, as in all methods that are not
// those of a relay.
func (t *loopTunnel) begin(k link) {
	t.websocket = k.websocket
	t.activate()
	up, down := &t.flows[toBackend], &t.flows[toClient]
	down.bytes = -int64(len(k.head))
	first := append(k.head, k.toClient...) // one packet
	t.forward(down, first, len(k.head)+t.follow(down, k.toClient))
	if t.phase(up) == relaying { // else what the backend had to say has ended the tunnel
		t.forward(up, k.toBackend, 0)
	}
	t.update()
}

// event is what epoll has to say of an end's socket.
func (t *loopTunnel) event(side Side, events uint32) {
	t.activate()
	const broken = syscall.EPOLLERR | syscall.EPOLLHUP // told without being asked for
	if events&syscall.EPOLLERR != 0 {
		// It may be a report that whoever made the socket has asked for, which
		// has to be taken in before the loop can wait again.
		syscall.Recvmsg(int(t.fds[side-1]), nil, nil, syscall.MSG_ERRQUEUE|syscall.MSG_DONTWAIT)
	}
	in, out := &t.flows[side-1], &t.flows[2-side]
	if events&(syscall.EPOLLOUT|broken) != 0 && t.blocked(out) {
		t.flush(out)
	}
	if events&(syscall.EPOLLIN|broken) != 0 && t.reads(in) {
		t.read(in)
	}
	t.update()
}

// review sees to it that the loop waits for what t now waits for, if for anything
// but its ends' next words.
func (t *loopTunnel) update() {
	if t.gone {
		return
	}
	up, down := &t.flows[toBackend], &t.flows[toClient]
	if t.phase(up) == over && t.phase(down) == over && !t.busy(up) && !t.busy(down) {
		t.finish()
		return
	}
	t.setInterest(SideClient, up, down)
	t.setInterest(SideBackend, down, up)
	if t.ending != nil && !t.gone {
		t.loop.due.set(t.ending, t.ending.next(t.loop.now))
		t.loop.setAlarm()
	}
	if !t.gone {
		t.deactivate()
	}
}

// await has epoll wait for what in and out want of an end.
func (t *loopTunnel) setInterest(side Side, in, out *loopFlow) {
	var want uint8
	if t.reads(in) {
		want |= syscall.EPOLLIN
	}
	if t.blocked(out) {
		want |= syscall.EPOLLOUT
	}
	have := t.interest[side-1]
	if want == have || t.gone {
		return
	}
	// A socket that nothing is wanted of is taken out: it could not be kept from
	// telling again and again that it is broken.
	op := syscall.EPOLL_CTL_MOD
	switch {
	case want == 0:
		op = syscall.EPOLL_CTL_DEL
	case have == 0:
		op = syscall.EPOLL_CTL_ADD
	}
	ev := syscall.EpollEvent{Events: uint32(want), Fd: t.slot, Pad: int32(side)}
	if err := syscall.EpollCtl(t.loop.fd, op, int(t.fds[side-1]), &ev); err != nil {
		t.carryOut(nil, t.ensureEnding().cut(os.NewSyscallError("epoll_ctl", err)))
		return
	}
	t.interest[side-1] = want
}

func (t *loopTunnel) close(code int, reason string) {
	t.loop.lock()
	defer t.loop.mu.Unlock()
	if t.gone {
		return
	}
	t.activate()
	t.carryOut(nil, t.ensureEnding().close(t.loop.now, code, reason))
	t.update()
}

func (t *loopTunnel) cut() {
	t.loop.lock()
	defer t.loop.mu.Unlock()
	if t.gone {
		return
	}
	t.activate()
	t.carryOut(nil, t.ensureEnding().cut(nil))
}

func (t *loopTunnel) idle() time.Duration {
	t.loop.lock()
	defer t.loop.mu.Unlock()
	return t.loop.now - t.last
}

func (t *loopTunnel) closing() bool { return t.ending != nil && t.ending.closing }

// begins returns the course of the tunnel for an event of it.
func (t *loopTunnel) ensureEnding() *ending {
	if t.ending == nil {
		t.ending = &ending{tunnel: t, course: course{websocket: t.websocket}}
	}
	return t.ending
}

// next returns the first deadline, 0 if there is none.
func (e *ending) next(now time.Duration) time.Duration {
	up, down := e.deadline(now, toBackend), e.deadline(now, toClient)
	if up == 0 || down != 0 && down < up {
		return down
	}
	return up
}

// expired is called when a deadline has passed.
func (t *loopTunnel) expired() {
	for i := range t.flows {
		f := &t.flows[i]
		t.carryOut(f, t.ending.expire(t.loop.now, f.dir, t.busy(f)))
	}
	t.update()
}

// extend is for a tunnel that isn't silent.
func (t *loopTunnel) extend() {
	if t.ending != nil {
		t.ending.active(t.loop.now)
	}
}

// finish has both connections closed and that told, but not by the loop, which
// can't wait for a socket that lingers or for who is told.
func (t *loopTunnel) finish() {
	if t.gone {
		return
	}
	t.gone = true
	for t.senders != nil {
		t.answerSender(ErrClosed)
	}
	for i := range t.flows {
		t.flows[i].drop()
		if t.interest[i] != 0 {
			syscall.EpollCtl(t.loop.fd, syscall.EPOLL_CTL_DEL, int(t.fds[i]), nil)
		}
	}
	e := t.ensureEnding()
	e.finish()
	t.loop.due.set(e, 0)
	t.loop.remove(t)
	s := e.cause
	up, down := &t.flows[toBackend], &t.flows[toClient]
	s.ToClient, s.MessagesToClient = max(0, down.bytes), down.frames.messages
	s.ToBackend, s.MessagesToBackend = up.bytes, up.frames.messages
	go func() {
		for _, fd := range t.fds {
			syscall.Close(int(fd))
		}
		t.tunnel.end(s)
	}()
}
