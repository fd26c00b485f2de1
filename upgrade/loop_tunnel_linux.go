package upgrade

import (
	"os"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/internal/sockets"
)

// A loopTunnel is a tunnel on a loop. loop.mu guards all of it, and is held in all its
// methods except those of an engine, which take it. These are its states:
//
//	state    has                    entered by
//	idle     80 bytes, this struct  deactivate: nothing pending, no sender, between two messages
//	active   activeState too        activate, at each event of a socket and each call from outside
//	ending   an ending too          ensureEnding, at the first event of its course; never idle again
//	frozen   activeState.frozen     freeze, from any state but gone; update does nothing, and no event is
//	                                reported; resume goes back, moved ends it here
//	gone     as ending              finish; its sockets are closed and its slot is free
//
// There may be many idle tunnels. That is why all that an idle one can do without is
// in activeState and ending.
type loopTunnel struct {
	loop   *loop
	tunnel *Tunnel
	*activeState
	passed    [2]passed // by direction, while idle
	last      stamp     // when the last byte came
	spoken    stamp     // when the last byte came from the backend, see heard
	fds       [2]int32  // of the client, of the backend
	slot      int32     // in loop.slots
	interest  [2]uint8  // the events that epoll waits for, by fd, and alone
	gone      bool
	websocket bool
}

// alone, in interest, tells that a descriptor is the only one of its socket and that its close
// doesn't wait. So the loop can close it, which takes it out of epoll, too.
const alone = 1 << 7

// passed counts what has passed in one direction.
type passed struct{ bytes, messages int64 }

// activeState is the part of a tunnel that an idle one doesn't have.
type activeState struct {
	flows   [2]loopFlow   // by direction
	ending  *ending       // nil before the first event of the course
	senders *sender       // a list of those that write or wait, the first one first
	stall   time.Duration // since when the client has taken nothing of what waits for it, 0 if nothing waits
	pace    pacer         // of the client's messages; the zero pacer for none
	secure  [2]*secureEnd // of the client, of the backend; nil for one without TLS
	frozen  *frozenState  // nil unless the tunnel is frozen
}

// activate makes an idle tunnel active. update makes it idle again if it can.
func (t *loopTunnel) activate() {
	if t.activeState != nil {
		return
	}
	m := t.loop.spare // most often there is one: events come one after the other
	if t.loop.spare = nil; m == nil {
		m = &activeState{}
	}
	for i, passed := range t.passed {
		dir := direction(i)
		f := t.tunnel.proxy.frames(t.websocket, dir.from())
		f.messages = passed.messages
		m.flows[i] = loopFlow{dir: dir, frames: f, bytes: passed.bytes}
	}
	m.pace, m.secure = pacer{}, [2]*secureEnd{}
	if int(t.slot) < len(t.loop.secure) {
		m.secure = t.loop.secure[t.slot]
	}
	if p := t.tunnel.proxy; t.websocket && p.MessageRate > 0 {
		m.pace = p.newPacer(t.loop.full[t.slot])
	}
	t.activeState = m
}

// deactivate makes the tunnel idle if nothing is under way.
func (t *loopTunnel) deactivate() {
	m := t.activeState
	if m.ending != nil || m.senders != nil {
		return
	}
	for i := range m.flows {
		f := &m.flows[i]
		if f.pending != nil || t.unsent(f) || t.websocket && !f.frames.between() {
			return
		}
		t.passed[i] = passed{f.bytes, f.frames.messages}
	}
	if m.pace.Every != 0 {
		t.loop.full[t.slot] = m.pace.full
	}
	t.activeState, t.loop.spare = nil, m
}

// An ending is what a tunnel has from the first event of its course on.
type ending struct {
	course
	tunnel *loopTunnel
	at     time.Duration // the first deadline of the course, 0 for none
	index  int           // in loop.due
}

// begin writes the 101, and what each end has sent directly behind its handshake.
func (t *loopTunnel) begin(k link) {
	t.websocket = k.websocket
	t.activate()
	up, down := &t.flows[toBackend], &t.flows[toClient]
	down.bytes = -int64(len(k.head))
	first := append(k.head, k.toClient...) // in one packet
	t.forward(down, first, len(k.head)+t.follow(down, k.toClient))
	if t.phase(up) == relaying { // else what the backend has sent has ended the tunnel
		t.forward(up, k.toBackend, 0)
	}
	t.update()
}

// event deals with events that epoll has reported of an end's socket.
func (t *loopTunnel) event(side Side, events uint32) {
	t.activate()
	const broken = syscall.EPOLLERR | syscall.EPOLLHUP // epoll reports these without being asked
	if events&syscall.EPOLLERR != 0 {
		// The socket's owner may have asked the kernel for reports, of timestamps for
		// example. They have to be received, or epoll reports them forever.
		syscall.Recvmsg(int(t.fds[side-1]), nil, nil, syscall.MSG_ERRQUEUE|syscall.MSG_DONTWAIT)
	}
	// SideClient and SideBackend are 1 and 2: in reads from that end, out writes to it.
	in, out := &t.flows[side-1], &t.flows[2-side]
	if events&(syscall.EPOLLOUT|broken) != 0 && t.blocked(out) {
		t.flush(out)
	}
	if events&(syscall.EPOLLIN|broken) != 0 && t.reads(in) {
		t.read(in)
		if events&syscall.EPOLLRDHUP != 0 && t.reads(in) {
			t.read(in) // the end, most often: epoll need not report it again
		}
	}
	t.update()
}

// update has the loop wait for what the tunnel needs next: room or bytes at its ends,
// and the next deadline of its course. It ends the tunnel if both directions are over,
// and makes it idle if it can be.
func (t *loopTunnel) update() {
	if t.gone || t.frozen != nil {
		return
	}
	up, down := &t.flows[toBackend], &t.flows[toClient]
	t.readHeld(up)
	t.readHeld(down)
	if t.gone {
		return
	}
	if t.done(up) && t.done(down) {
		t.closeNotify(up)
		t.closeNotify(down)
		t.finish()
		return
	}
	if !t.blocked(down) {
		t.stall = 0
	} else if t.stall == 0 {
		t.stall = max(1, t.loop.now)
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

// setInterest has epoll wait for what the tunnel needs of an end: bytes for in, room
// for out.
func (t *loopTunnel) setInterest(side Side, in, out *loopFlow) {
	var want uint8
	if t.reads(in) {
		want |= syscall.EPOLLIN
	}
	if t.blocked(out) {
		want |= syscall.EPOLLOUT
	}
	have := t.interest[side-1] &^ alone
	if want == have || t.gone {
		return
	}
	// A socket of which nothing is needed is removed from epoll, which would report
	// an error of it again and again otherwise.
	op := syscall.EPOLL_CTL_MOD
	switch {
	case want == 0:
		op = syscall.EPOLL_CTL_DEL
	case have == 0:
		op = syscall.EPOLL_CTL_ADD
	}
	// Fd and Pad come back with each event, and are ours to choose.
	ev := syscall.EpollEvent{Events: uint32(want), Fd: t.slot, Pad: int32(side)}
	if want&syscall.EPOLLIN != 0 {
		ev.Events |= syscall.EPOLLRDHUP
	}
	if err := syscall.EpollCtl(t.loop.fd, op, int(t.fds[side-1]), &ev); err != nil {
		t.carryOut(nil, t.ensureEnding().cut(os.NewSyscallError("epoll_ctl", err)))
		return
	}
	t.interest[side-1] ^= have ^ want
}

// leaveEpoll has epoll report nothing more of an end's socket.
func (t *loopTunnel) leaveEpoll(i int) {
	if t.interest[i]&^alone != 0 {
		syscall.EpollCtl(t.loop.fd, syscall.EPOLL_CTL_DEL, int(t.fds[i]), nil)
	}
}

func (t *loopTunnel) close(code int, reason string, grace time.Duration) {
	t.loop.lock()
	defer t.loop.mu.Unlock()
	if t.gone {
		return
	}
	t.activate()
	if t.frozen != nil {
		t.frozen.close(code, reason, grace)
		return
	}
	asked, answered := t.asked()
	t.carryOut(nil, t.ensureEnding().closeGracefully(t.loop.now, grace, code, reason, asked, answered))
	t.update()
}

func (t *loopTunnel) cut() {
	t.loop.lock()
	defer t.loop.mu.Unlock()
	if t.gone {
		return
	}
	t.activate()
	if t.frozen != nil {
		t.frozen.cut = true
		return
	}
	t.carryOut(nil, t.ensureEnding().cut(nil))
}

func (t *loopTunnel) idle() time.Duration {
	t.loop.lock()
	defer t.loop.mu.Unlock()
	return t.last.since(t.loop.now)
}

func (t *loopTunnel) heard() (waits bool, silent time.Duration) {
	t.loop.lock()
	defer t.loop.mu.Unlock()
	waits = !t.gone && !t.closing()
	if m := t.activeState; m != nil { // an idle tunnel reads both ends
		down := &m.flows[toClient]
		waits = waits && t.phase(down) == relaying && !t.busy(down)
	}
	return waits, t.spoken.since(t.loop.now)
}

func (t *loopTunnel) stalled() time.Duration {
	t.loop.lock()
	defer t.loop.mu.Unlock()
	if t.activeState == nil || t.stall == 0 {
		return 0
	}
	return t.loop.now - t.stall
}

// closing reports whether the tunnel is closing.
func (t *loopTunnel) closing() bool {
	return t.activeState != nil && t.ending != nil && t.ending.closing
}

// ensureEnding returns the tunnel's ending, whose course is about to be told an event.
func (t *loopTunnel) ensureEnding() *ending {
	if t.ending == nil {
		t.ending = &ending{tunnel: t, course: course{websocket: t.websocket}}
	}
	return t.ending
}

// next returns the first deadline of both directions, 0 if there is none.
func (e *ending) next(now time.Duration) time.Duration {
	up, down := e.deadline(now, toBackend), e.deadline(now, toClient)
	if up == 0 || down != 0 && down < up {
		return down
	}
	return up
}

// expired does what is due. The loop calls it when the deadline of an ending has
// passed.
func (t *loopTunnel) expired() {
	for i := range t.flows {
		f := &t.flows[i]
		t.carryOut(f, t.ending.expire(t.loop.now, f.dir, t.busy(f)))
	}
	t.update()
}

// extend reports to the course that the tunnel is not silent.
func (t *loopTunnel) extend() {
	if t.ending != nil {
		t.ending.active(t.loop.now)
	}
}

// finish ends the tunnel, and closes both connections. A goroutine of its own closes those
// whose close may wait, and reports the end: the loop can't wait for a socket that lingers or
// for a callback.
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
		if e := t.secure[i]; e != nil {
			e.drop()
		}
		if t.interest[i]&alone != 0 {
			sockets.Close(int(t.fds[i]))
		} else {
			t.leaveEpoll(i)
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
		for i, fd := range t.fds {
			if t.interest[i]&alone == 0 {
				syscall.Close(int(fd))
			}
		}
		t.tunnel.end(s)
	}()
}
