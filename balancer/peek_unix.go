//go:build unix

package balancer

import (
	"net"
	"syscall"
)

// A socket is how the kernel knows a connection.
type socket struct {
	raw  syscall.RawConn // nil if it doesn't
	look func(fd uintptr)
	seen sight // by look
	room [1]byte
}

func newSocket(c net.Conn) *socket {
	s := &socket{}
	if c, ok := c.(syscall.Conn); ok {
		s.raw, _ = c.SyscallConn()
	}
	s.look = func(fd uintptr) { // made once: it would be an allocation each time
		n, _, err := syscall.Recvfrom(int(fd), s.room[:], syscall.MSG_PEEK)
		switch {
		case n > 0:
			s.seen = spoke
		case err == syscall.EAGAIN || err == syscall.EINTR:
			s.seen = silent
		}
	}
	return s
}

// peek says what the other end did, as far as can be known. It asks the kernel
// without taking a byte and without waiting.
func (s *socket) peek(bool) sight {
	if s.raw == nil {
		return silent
	}
	s.seen = closed // also if it was closed on this side
	// Control, since Read would wait. The runtime keeps sockets non-blocking, so
	// that the call returns at once.
	_ = s.raw.Control(s.look)
	return s.seen
}
