package sockets

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A descriptor is a socket together with all who wait for it. Its two sides, in and out, can
// be used at the same time, and each by one goroutine at a time.
//
// epoll reports an event of it once (EPOLLET), and event notes in ready what may be done. A
// call that is about to try takes ready back before, never after: what epoll reports while
// the call is under way then stays noted, and nothing is lost. ready becomes true again, or
// stays so, unless the call has shown that nothing more is there:
//
//	a call of in                      ready afterwards
//	fails with EAGAIN                 false
//	reads less than it has room for   false, since epoll reports what comes after that
//	the same, if the socket is eager  true
//	all else                          true
type descriptor struct {
	fd   int
	refs atomic.Uint32 // calls under way, and closing
	in   side
	out  side

	owner syscall.RawConn // of fd, closes it; nil if it is ours

	// eager is set if a Read of fewer bytes than there is room for doesn't show that the
	// socket is empty: the end or an error comes behind these bytes (EPOLLRDHUP, EPOLLHUP,
	// EPOLLERR), which epoll may have reported together with them; or the kernel ends a read
	// at urgent data (EPOLLPRI), or between two messages of a Unix socket.
	eager atomic.Bool

	mu     sync.Mutex // guards the following, and what side says
	poller *poller    // nil if it waits for no events
	slot   int32      // in poller.table
	events uint32     // that it waits for
}

// closing is the bit of refs that tells that a descriptor was closed or taken. The last call
// under way then closes it, unless it was taken.
const closing = 1 << 31

// A side is one direction of a descriptor, or the connections to accept.
type side struct {
	use   sync.Mutex  // held by the call that uses the side
	ready atomic.Bool // a call may succeed, or fail with something else than EAGAIN
	timed atomic.Bool // deadline isn't zero

	// Guarded by descriptor.mu:
	deadline time.Time
	waits    bool          // a call is about to receive from wake
	wake     chan struct{} // nil before the first wait
	timer    *time.Timer   // nil before the first deadline that a call waits for
	alarm    time.Time     // when timer fires, not after deadline while a call waits; zero if it doesn't
}

// acquire begins a call, and reports whether the descriptor is open. Until release it stays
// so.
func (d *descriptor) acquire() bool {
	for {
		refs := d.refs.Load()
		if refs&closing != 0 {
			return false
		}
		if d.refs.CompareAndSwap(refs, refs+1) {
			return true
		}
	}
}

func (d *descriptor) release() {
	if d.refs.Add(^uint32(0)) == closing {
		d.destroy()
	}
}

// close has all calls fail, those that wait too, and closes the descriptor when none is
// under way any more. It reports whether it was open.
func (d *descriptor) close() bool {
	for {
		refs := d.refs.Load()
		if refs&closing != 0 {
			return false
		}
		if d.refs.CompareAndSwap(refs, refs|closing) {
			if refs == 0 {
				d.destroy()
			} else {
				d.interrupt()
			}
			return true
		}
	}
}

// interrupt wakes the calls that wait.
func (d *descriptor) interrupt() {
	d.mu.Lock()
	d.in.signal()
	d.out.signal()
	d.mu.Unlock()
}

// destroy closes a descriptor that nobody uses. That removes it from epoll, too.
func (d *descriptor) destroy() {
	d.mu.Lock()
	d.forget()
	d.mu.Unlock()
	if d.owner == nil {
		syscall.Close(d.fd)
	}
}

// forget takes back what others have of d: timers, and the poller's slot.
func (d *descriptor) forget() {
	for _, s := range []*side{&d.in, &d.out} {
		if s.timer != nil {
			s.timer.Stop()
		}
	}
	if d.poller != nil {
		d.poller.remove(d.slot)
		d.poller = nil
	}
}

// event notes events that epoll has reported, and wakes whoever waits for them.
func (d *descriptor) event(events uint32) {
	const failed = syscall.EPOLLHUP | syscall.EPOLLERR
	d.mu.Lock()
	if events&(syscall.EPOLLRDHUP|syscall.EPOLLPRI|failed) != 0 {
		d.eager.Store(true) // before ready: see read
	}
	if events&(syscall.EPOLLIN|syscall.EPOLLRDHUP|syscall.EPOLLPRI|failed) != 0 {
		d.in.ready.Store(true)
		d.in.signal()
	}
	if events&(syscall.EPOLLOUT|failed) != 0 {
		d.out.ready.Store(true)
		d.out.signal()
	}
	d.mu.Unlock()
}

// signal has the call that waits, if one does, look again what has changed.
func (s *side) signal() {
	if s.waits {
		s.waits = false
		s.wake <- struct{}{} // has room: one call waits at a time, and has received what was sent before
	}
}

// wait returns when s is ready, or an error if the descriptor is closed or the deadline
// passes before. It has epoll report events, besides those of reading.
func (d *descriptor) wait(s *side, events uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.await(events); err != nil {
		return err
	}
	for {
		switch {
		case d.refs.Load()&closing != 0:
			return net.ErrClosed
		case s.late():
			return os.ErrDeadlineExceeded
		case s.ready.Load():
			return nil
		}
		d.setAlarm(s)
		if s.wake == nil {
			s.wake = make(chan struct{}, 1)
		}
		s.waits = true
		d.poller.rouse()
		d.mu.Unlock()
		<-s.wake
		d.mu.Lock()
	}
}

// waits reports whether a call waits.
func (d *descriptor) waits() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.in.waits || d.out.waits
}

// await has epoll report events, besides those of reading. epoll then reports at once what
// there is already.
func (d *descriptor) await(events uint32) error {
	events |= d.events | syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLPRI | edgeTriggered
	if events == d.events || d.refs.Load()&closing != 0 {
		return nil
	}
	var err error
	if d.poller == nil {
		err = register(d, events)
	} else {
		err = control(d.poller.fd, syscall.EPOLL_CTL_MOD, d.fd, events, d.slot)
	}
	if err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	d.events = events
	return nil
}

// edgeTriggered is EPOLLET, which package syscall has as a negative number.
const edgeTriggered = 1 << 31

// late reports whether the deadline has passed.
func (s *side) late() bool {
	return !s.deadline.IsZero() && time.Until(s.deadline) <= 0
}

// setAlarm has the call that waits woken at its deadline. A timer that fires before is left
// to do so, and is then set anew: net/http sets deadlines for each request, and most are
// changed again long before they pass.
func (d *descriptor) setAlarm(s *side) {
	if s.deadline.IsZero() || !s.alarm.IsZero() && !s.deadline.Before(s.alarm) {
		return
	}
	s.alarm = s.deadline
	if s.timer != nil {
		s.timer.Reset(time.Until(s.deadline))
		return
	}
	s.timer = time.AfterFunc(time.Until(s.deadline), func() {
		d.mu.Lock()
		s.alarm = time.Time{}
		s.signal()
		d.mu.Unlock()
	})
}

// setDeadline sets the deadline of s, and reports whether the descriptor is open.
func (d *descriptor) setDeadline(s *side, t time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refs.Load()&closing != 0 {
		return false
	}
	s.deadline = t
	s.timed.Store(!t.IsZero())
	if !s.waits || t.IsZero() {
		return true
	}
	if s.late() {
		s.signal()
	} else {
		d.setAlarm(s)
	}
	return true
}

// begin begins a call that uses s, until end.
func (d *descriptor) begin(s *side) error {
	if !d.acquire() {
		return net.ErrClosed
	}
	s.use.Lock()
	if s.timed.Load() {
		d.mu.Lock()
		late := s.late()
		d.mu.Unlock()
		if late {
			d.end(s)
			return os.ErrDeadlineExceeded
		}
	}
	return nil
}

func (d *descriptor) end(s *side) {
	s.use.Unlock()
	d.release()
}

func (d *descriptor) read(b []byte) (int, error) {
	if len(b) == 0 && d.refs.Load()&closing == 0 {
		return 0, nil // behind the deadline, too
	}
	s := &d.in
	if err := d.begin(s); err != nil {
		return 0, err
	}
	defer d.end(s)
	for {
		if !s.ready.Load() {
			if err := d.wait(s, 0); err != nil {
				return 0, err
			}
		}
		s.ready.Store(false)
		n, err := receive(d.fd, b)
		switch {
		case err == syscall.EAGAIN:
			continue
		case n <= 0 || n == len(b) || d.eager.Load():
			s.ready.Store(true)
		}
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (d *descriptor) write(b []byte) (written int, err error) {
	s := &d.out
	if err := d.begin(s); err != nil {
		return 0, err
	}
	defer d.end(s)
	for len(b) > 0 {
		if !s.ready.Load() {
			if err := d.wait(s, syscall.EPOLLOUT); err != nil {
				return written, err
			}
		}
		s.ready.Store(false)
		n, err := send(d.fd, b)
		if err == syscall.EAGAIN {
			continue
		}
		s.ready.Store(true)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return written, os.NewSyscallError("write", err)
		}
		b, written = b[n:], written+n
	}
	return written, nil
}
