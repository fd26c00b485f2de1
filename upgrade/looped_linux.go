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
	lanes     [2]lane // see lane
	ending    *ending // once that has begun
	senders   *sender // those who wait for their turn or are at it
	closeSeen bool    // a close frame of an end has passed
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
		f := u.tunnel.proxy.frames(u.websocket, Side(i+1))
		f.messages = passed.messages
		m.lanes[i] = lane{from: Side(i + 1), frames: f, bytes: passed.bytes}
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

// ending is what a tunnel remembers once something has ended.
type ending struct {
	tunnel *looped
	cause  Summary // of what happened first
	known  bool

	closing   bool // as from here on
	code      int
	reason    string
	toBackend bool          // a close frame is due to the backend too
	frameBy   time.Duration // until then a passing frame may end
	goneBy    time.Duration // until then ends are drained

	quiet   time.Duration // how long the direction that is left may be silent
	quietBy time.Duration // 0 for ever
	drainBy time.Duration // until then lanes that are draining do so

	at    time.Duration // the first of these, 0 for none
	index int           // among the deadlines
}

// begin writes what comes first. loop.mu is held, as in all methods that are not
// those of a relay.
func (u *looped) begin(k link) {
	u.websocket = k.websocket
	u.move()
	up, down := &u.lanes[0], &u.lanes[1]
	down.bytes = -int64(len(k.head))
	first := append(k.head, k.toClient...) // one packet
	u.pour(down, first, len(k.head)+u.follow(down, k.toClient))
	if up.state == relaying { // else what the backend had to say has ended the tunnel
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
	out, in := u.toward(side), &u.lanes[side-1]
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
	up, down := &u.lanes[0], &u.lanes[1]
	if up.state == over && down.state == over && !u.busy(up) && !u.busy(down) {
		u.finish()
		return
	}
	u.await(Client, up, down)
	u.await(Backend, down, up)
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
		u.note(Summary{By: Gateway, Err: os.NewSyscallError("epoll_ctl", err)})
		u.finish()
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
	u.end(code, reason, true, Summary{By: Gateway, Code: code, Reason: reason})
	u.review()
}

func (u *looped) cut() {
	u.loop.lock()
	defer u.loop.mu.Unlock()
	if u.gone {
		return
	}
	u.move()
	u.note(Summary{By: Gateway})
	u.finish()
}

func (u *looped) idle() time.Duration {
	u.loop.lock()
	defer u.loop.mu.Unlock()
	return u.loop.now - u.last
}

// end begins to close the tunnel. Only the first counts.
func (u *looped) end(code int, reason string, toBackend bool, cause Summary) {
	if u.gone || u.closing() {
		return
	}
	u.note(cause)
	e := u.ending
	e.closing, e.code, e.reason, e.toBackend = true, code, reason, toBackend
	e.frameBy = u.loop.now + frameTime
	e.goneBy = e.frameBy + drainTime
	u.refuse()
	u.settle(&u.lanes[0])
	u.settle(&u.lanes[1])
}

func (u *looped) closing() bool { return u.ending != nil && u.ending.closing }

// note remembers what ended the tunnel: what is noted first.
func (u *looped) note(cause Summary) {
	if e := u.begins(); !e.known {
		e.known, e.cause = true, cause
	}
}

// begins returns what is kept of the end, from its begin on.
func (u *looped) begins() *ending {
	if u.ending == nil {
		u.ending = &ending{tunnel: u}
	}
	return u.ending
}

// next returns the first deadline after now, 0 if there is none.
func (e *ending) next(now time.Duration) (first time.Duration) {
	if e.closing {
		if now < e.frameBy {
			return e.frameBy
		}
		return e.goneBy
	}
	if e.drainBy == 0 || e.quietBy != 0 && e.quietBy < e.drainBy {
		return e.quietBy
	}
	return e.drainBy
}

// expired is called when a deadline has passed.
func (u *looped) expired() {
	e, now := u.ending, u.loop.now
	passed := func(at *time.Duration) bool {
		if *at == 0 || now < *at {
			return false
		}
		*at = 0
		return true
	}
	up, down := &u.lanes[0], &u.lanes[1]
	switch {
	case e.closing && now >= e.goneBy:
		u.finish()
	case e.closing:
		u.settle(up)
		u.settle(down)
	case passed(&e.drainBy):
		for f := range u.lanes {
			if u.lanes[f].state == draining {
				u.lanes[f].state = over
			}
		}
	case passed(&e.quietBy):
		if left := u.left(); left != nil && u.busy(left) {
			e.quietBy = now + e.quiet // it is not the source that is silent
		} else if left != nil {
			u.note(Summary{By: Gateway, Err: os.ErrDeadlineExceeded})
			u.finish()
		}
	}
	u.review()
}

// left returns the lane that still relays when the other one doesn't, and nil
// if there is none.
func (u *looped) left() *lane {
	for i := range u.lanes {
		if u.lanes[i].state == relaying {
			return &u.lanes[i]
		}
	}
	return nil
}

// leave is the end of a lane while the other one goes on, for as long as it isn't
// silent for longer than quiet.
func (u *looped) leave(quiet time.Duration) {
	e := u.begins()
	e.quiet, e.quietBy = quiet, u.loop.now+quiet
}

// extend is for a direction that is left and not silent.
func (u *looped) extend() {
	if u.ending != nil && u.ending.quietBy != 0 {
		u.ending.quietBy = u.loop.now + u.ending.quiet
	}
}

// reset closes both connections because the client's was reset, so that the
// backend learns the same at once.
func (u *looped) reset() {
	syscall.SetsockoptLinger(int(u.fds[Backend-1]), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	u.finish()
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
	up, down := &u.lanes[0], &u.lanes[1]
	for i := range u.lanes {
		u.lanes[i].drop()
		u.lanes[i].state = over
		if u.interest[i] != 0 {
			syscall.EpollCtl(u.loop.fd, syscall.EPOLL_CTL_DEL, int(u.fds[i]), nil)
		}
	}
	e := u.begins()
	u.loop.due.set(e, 0)
	u.loop.remove(u)
	s := e.cause
	s.ToClient, s.MessagesToClient = max(0, down.bytes), down.frames.messages
	s.ToBackend, s.MessagesToBackend = up.bytes, up.frames.messages
	go func() {
		for _, fd := range u.fds {
			syscall.Close(int(fd))
		}
		u.tunnel.end(s)
	}()
}
