package upgrade

import (
	"os"
	"syscall"
	"time"
)

// looped is a tunnel on a loop, whose mu guards all of it. There are many that
// are at rest, between two messages with nothing under way: this is what such a
// one needs.
type looped struct {
	loop   *loop
	tunnel *Tunnel
	*moving
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
type moving struct {
	lanes   [2]lane // by direction
	ending  *ending // nil while nothing has ended
	senders *sender // those who wait for their turn or are at it
}

// move ends a tunnel's rest, until review.
func (u *looped) move() {
	if u.moving != nil {
		return
	}
	m := u.loop.spare
	if u.loop.spare = nil; m == nil {
		m = &moving{}
	}
	for i, passed := range u.passed {
		dir := direction(i)
		f := u.tunnel.proxy.frames(u.websocket, dir.from())
		f.messages = passed.messages
		m.lanes[i] = lane{dir: dir, frames: f, bytes: passed.bytes}
	}
	u.moving = m
}

// rest lets go of what is only needed while something is under way, if nothing is.
func (u *looped) rest() {
	m := u.moving
	if m.ending != nil || m.senders != nil {
		return
	}
	for i := range m.lanes {
		f := &m.lanes[i]
		if f.stock != nil || u.websocket && !f.frames.between() {
			return
		}
		u.passed[i] = passed{f.bytes, f.frames.messages}
	}
	u.moving, u.loop.spare = nil, m
}

// ending is what a tunnel has from the first event of its course on.
type ending struct {
	course
	tunnel *looped
	at     time.Duration // the first deadline, 0 for none
	index  int           // among the deadlines
}

// begin writes what comes first. loop.mu is held, as in all methods that are not
// those of a relay.
func (u *looped) begin(k link) {
	u.websocket = k.websocket
	u.move()
	up, down := &u.lanes[toBackend], &u.lanes[toClient]
	down.bytes = -int64(len(k.head))
	first := append(k.head, k.toClient...) // one packet
	u.pour(down, first, len(k.head)+u.follow(down, k.toClient))
	if u.phase(up) == relaying { // else what the backend had to say has ended the tunnel
		u.pour(up, k.toBackend, 0)
	}
	u.review()
}

// event is what epoll has to say of an end's socket.
func (u *looped) event(side Side, events uint32) {
	u.move()
	const broken = syscall.EPOLLERR | syscall.EPOLLHUP // told without being asked for
	if events&syscall.EPOLLERR != 0 {
		// It may be a report that whoever made the socket has asked for, which
		// has to be taken in before the loop can wait again.
		syscall.Recvmsg(int(u.fds[side-1]), nil, nil, syscall.MSG_ERRQUEUE|syscall.MSG_DONTWAIT)
	}
	in, out := &u.lanes[side-1], &u.lanes[2-side]
	if events&(syscall.EPOLLOUT|broken) != 0 && u.blocked(out) {
		u.flush(out)
	}
	if events&(syscall.EPOLLIN|broken) != 0 && u.reads(in) {
		u.read(in)
	}
	u.review()
}

// review sees to it that the loop waits for what u now waits for, if for anything
// but its ends' next words.
func (u *looped) review() {
	if u.gone {
		return
	}
	up, down := &u.lanes[toBackend], &u.lanes[toClient]
	if u.phase(up) == over && u.phase(down) == over && !u.busy(up) && !u.busy(down) {
		u.finish()
		return
	}
	u.await(SideClient, up, down)
	u.await(SideBackend, down, up)
	if u.ending != nil && !u.gone {
		u.loop.due.set(u.ending, u.ending.next(u.loop.now))
		u.loop.wind()
	}
	if !u.gone {
		u.rest()
	}
}

// await has epoll wait for what in and out want of an end.
func (u *looped) await(side Side, in, out *lane) {
	var want uint8
	if u.reads(in) {
		want |= syscall.EPOLLIN
	}
	if u.blocked(out) {
		want |= syscall.EPOLLOUT
	}
	have := u.interest[side-1]
	if want == have || u.gone {
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
	ev := syscall.EpollEvent{Events: uint32(want), Fd: u.slot, Pad: int32(side)}
	if err := syscall.EpollCtl(u.loop.fd, op, int(u.fds[side-1]), &ev); err != nil {
		u.obey(nil, u.begins().cut(os.NewSyscallError("epoll_ctl", err)))
		return
	}
	u.interest[side-1] = want
}

func (u *looped) close(code int, reason string) {
	u.loop.lock()
	defer u.loop.mu.Unlock()
	if u.gone {
		return
	}
	u.move()
	u.obey(nil, u.begins().close(u.loop.now, code, reason))
	u.review()
}

func (u *looped) cut() {
	u.loop.lock()
	defer u.loop.mu.Unlock()
	if u.gone {
		return
	}
	u.move()
	u.obey(nil, u.begins().cut(nil))
}

func (u *looped) idle() time.Duration {
	u.loop.lock()
	defer u.loop.mu.Unlock()
	return u.loop.now - u.last
}

func (u *looped) closing() bool { return u.ending != nil && u.ending.closing }

// begins returns the course of the tunnel for an event of it.
func (u *looped) begins() *ending {
	if u.ending == nil {
		u.ending = &ending{tunnel: u, course: course{websocket: u.websocket}}
	}
	return u.ending
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
func (u *looped) expired() {
	for i := range u.lanes {
		f := &u.lanes[i]
		u.obey(f, u.ending.expire(u.loop.now, f.dir, u.busy(f)))
	}
	u.review()
}

// extend is for a tunnel that isn't silent.
func (u *looped) extend() {
	if u.ending != nil {
		u.ending.active(u.loop.now)
	}
}

// finish has both connections closed and that told, but not by the loop, which
// can't wait for a socket that lingers or for who is told.
func (u *looped) finish() {
	if u.gone {
		return
	}
	u.gone = true
	for u.senders != nil {
		u.answer(ErrClosed)
	}
	for i := range u.lanes {
		u.lanes[i].drop()
		if u.interest[i] != 0 {
			syscall.EpollCtl(u.loop.fd, syscall.EPOLL_CTL_DEL, int(u.fds[i]), nil)
		}
	}
	e := u.begins()
	e.finish()
	u.loop.due.set(e, 0)
	u.loop.remove(u)
	s := e.cause
	up, down := &u.lanes[toBackend], &u.lanes[toClient]
	s.ToClient, s.MessagesToClient = max(0, down.bytes), down.frames.messages
	s.ToBackend, s.MessagesToBackend = up.bytes, up.frames.messages
	go func() {
		for _, fd := range u.fds {
			syscall.Close(int(fd))
		}
		u.tunnel.end(s)
	}()
}
