package sockets

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
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

	owner    syscall.RawConn // of fd, closes it; nil if it is ours
	accepted bool            // by a listener

	// shared is set if others may have seen fd: they may have duplicated it, so that its
	// close doesn't end the socket, or have had that wait (SO_LINGER).
	shared atomic.Bool

	// eager is set if a Read of fewer bytes than there is room for doesn't show that the
	// socket is empty: the end or an error comes behind these bytes (EPOLLRDHUP, EPOLLHUP,
	// EPOLLERR), which epoll may have reported together with them; or the kernel ends a read
	// at urgent data (EPOLLPRI), or between two messages of a Unix socket.
	eager atomic.Bool

	mu     sync.Mutex // guards the following, and what side says
	poller *poller    // nil if it waits for no events
	slot   int32      // in poller.table
	turn   int32      // tells d from those that had the slot before
	events uint32     // that it waits for
	once   bool       // epoll reports one event, and then nothing before await: see Conn.ReportOnce
}

// closing is the bit of refs that tells that a descriptor was closed or taken. The last call
// under way then closes it, unless it was taken.
const closing = 1 << 31

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
	switch {
	case d.owner != nil:
	case d.shared.Load():
		syscall.Close(d.fd)
	default:
		Close(d.fd)
	}
}

// share notes that others see fd.
func (d *descriptor) share() {
	if !d.shared.Load() {
		d.shared.Store(true)
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
	if d.once {
		d.events = 0
		d.in.signal() // who waits for something else has to say so again
		d.out.signal()
	}
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

// begin begins a call that uses s, until end.
func (d *descriptor) begin(s *side) error {
	if !d.acquire() {
		return net.ErrClosed
	}
	s.use.Lock()
	if d.refs.Load()&closing != 0 { // while another call used s, which may have left half of its bytes unsent
		d.end(s)
		return net.ErrClosed
	}
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
	for first := true; ; first = false {
		if !s.ready.Load() {
			if err := d.waitFor(s, 0, first && d.accepted && len(b) == 1); err != nil {
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
		n, err := Write(d.fd, b)
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
