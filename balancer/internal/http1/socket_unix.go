//go:build unix

package http1

import (
	"io"
	"net"
	"os"
	"syscall"
)

// A socket is how the kernel knows a connection. Its functions are made once:
// each would be an allocation otherwise.
type socket struct {
	raw  syscall.RawConn // nil if it doesn't
	look func(fd uintptr)
	seen sight // by look
	room [1]byte

	turn    func(fd uintptr) (done bool) // of ask, as what follows
	kept    bool
	out, in []byte
	sent    int
	n       int
	err     error
}

func newSocket(c net.Conn) *socket {
	s := &socket{}
	if c, ok := c.(syscall.Conn); ok {
		s.raw, _ = c.SyscallConn()
	}
	s.look = func(fd uintptr) {
		s.seen = closed // also if it was closed on this side
		n, _, err := syscall.Recvfrom(int(fd), s.room[:], syscall.MSG_PEEK)
		switch {
		case n > 0:
			s.seen = spoke
		case err == syscall.EAGAIN || err == syscall.EINTR:
			s.seen = silent
		}
	}
	s.turn = func(fd uintptr) bool {
		if s.sent == 0 {
			return s.begin(fd)
		}
		s.n, s.err = untilDone(syscall.Read, fd, s.in)
		switch {
		case s.err == syscall.EAGAIN:
			return false
		case s.err != nil:
			s.err = os.NewSyscallError("read", s.err)
		case s.n == 0:
			s.err = io.EOF
		}
		return true
	}
	return s
}

// peek asks the kernel what the other end did, without taking a byte and without
// waiting.
func (s *socket) peek() sight {
	if s.raw == nil {
		return hidden
	}
	s.seen = closed
	// Control, since Read would wait. The runtime keeps sockets non-blocking, so
	// that the call returns at once.
	_ = s.raw.Control(s.look)
	return s.seen
}

// asks reports whether ask works: c passes bytes to the kernel as they are.
func asks(c net.Conn) bool {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// ask writes a request, unless peek would find the connection unfit for it, and
// reads what is there of the answer. It is cheaper than the three one by one: the
// runtime begins to listen before the request is written, so that nobody has to
// look first for an answer that can't be there yet. n is 0 without an error if
// nothing was read: the socket is full, when sent is below len(out), or the other
// end had spoken first.
func (s *socket) ask(out, in []byte, kept bool) (sent, n int, err error) {
	s.out, s.in, s.kept = out, in, kept
	s.sent, s.n, s.err = 0, 0, nil
	err = s.raw.Read(s.turn)
	if err == nil {
		err = s.err
	}
	s.out, s.in = nil, nil
	return s.sent, s.n, err
}

// begin is the first turn of ask.
func (s *socket) begin(fd uintptr) (done bool) {
	s.look(fd)
	if s.seen == closed || s.seen == spoke && s.kept {
		s.err = io.EOF
		return true
	}
	s.sent, s.err = untilDone(syscall.Write, fd, s.out)
	if s.err == syscall.EAGAIN {
		s.err = nil
	} else if s.err != nil {
		s.err = os.NewSyscallError("write", s.err)
	}
	return s.sent < len(s.out) || s.seen == spoke // of what is there already the runtime may not tell again
}

// untilDone makes a system call again for as long as a signal interrupts it.
func untilDone(call func(fd int, p []byte) (int, error), fd uintptr, p []byte) (n int, err error) {
	for {
		n, err = call(int(fd), p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
