package sockets

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

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

// signal has the call that waits, if one does, look again what has changed.
func (s *side) signal() {
	if s.waits {
		s.waits = false
		s.wake <- struct{}{} // has room: one call waits at a time, and has received what was sent before
	}
}

// wait returns when s is ready, or an error if the descriptor is closed or the deadline
// passes before. It has epoll report events, besides those of reading.
func (d *descriptor) wait(s *side, events uint32) error { return d.waitFor(s, events, false) }

// waitFor is wait. With soon the call will most likely end soon without an event: see postpone.
func (d *descriptor) waitFor(s *side, events uint32, soon bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for soon = soon && d.poller == nil; ; soon = false {
		switch {
		case d.refs.Load()&closing != 0:
			return net.ErrClosed
		case s.late():
			return os.ErrDeadlineExceeded
		case s.ready.Load():
			return nil
		}
		if soon {
			postpone(d)
		} else if err := d.await(events); err != nil {
			return err
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
	if d.once {
		events |= syscall.EPOLLONESHOT
	}
	if events == d.events || d.refs.Load()&closing != 0 {
		return nil
	}
	var err error
	if d.poller == nil {
		err = register(d, events)
	} else {
		err = d.control(syscall.EPOLL_CTL_MOD, events)
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
