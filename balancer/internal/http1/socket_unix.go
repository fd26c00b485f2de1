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
	raw      syscall.RawConn // nil if it doesn't
	recvPeek func(fd uintptr)
	activity activity // by recvPeek
	peeked   [1]byte

	turn    func(fd uintptr) (done bool) // of writeRead, as what follows
	reused  bool
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
	s.recvPeek = func(fd uintptr) {
		s.activity = closed // also if it was closed on this side
		n, _, err := syscall.Recvfrom(int(fd), s.peeked[:], syscall.MSG_PEEK)
		switch {
		case n > 0:
			s.activity = spoke
		case err == syscall.EAGAIN || err == syscall.EINTR:
			s.activity = silent
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
func (s *socket) peek() activity {
	if s.raw == nil {
		return hidden
	}
	s.activity = closed
	// Control, since Read would wait. The runtime keeps sockets non-blocking, so
	// that the call returns at once.
	_ = s.raw.Control(s.recvPeek)
	return s.activity
}

// direct reports whether writeRead works: c passes bytes to the kernel as they are.
func direct(c net.Conn) bool {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// writeRead writes a request, unless peek would find the connection unfit for it, and
// reads what is there of the answer. It is cheaper than the three one by one: the
// runtime begins to listen before the request is written, so that nobody has to
// look first for an answer that can't be there yet. n is 0 without an error if
// nothing was read: the socket is full, when sent is below len(out), or the other
// end had spoken first.
func (s *socket) writeRead(out, in []byte, reused bool) (sent, n int, err error) {
	s.out, s.in, s.reused = out, in, reused
	s.sent, s.n, s.err = 0, 0, nil
	err = s.raw.Read(s.turn)
	if err == nil {
		err = s.err
	}
	s.out, s.in = nil, nil
	return s.sent, s.n, err
}

// begin is the first turn of writeRead.
func (s *socket) begin(fd uintptr) (done bool) {
	s.recvPeek(fd)
	if s.activity == closed || s.activity == spoke && s.reused {
		s.err = io.EOF
		return true
	}
	s.sent, s.err = untilDone(syscall.Write, fd, s.out)
	if s.err == syscall.EAGAIN {
		s.err = nil
	} else if s.err != nil {
		s.err = os.NewSyscallError("write", s.err)
	}
	return s.sent < len(s.out) || s.activity == spoke // of what is there already the runtime may not tell again
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
