//go:build unix

package http1

import (
	"io"
	"net"
	"os"
	"syscall"

	"github.com/limpet-go/limpet/internal/httphead"
	"github.com/limpet-go/limpet/internal/sockets"
)

// A socket makes system calls on a connection. Its two functions are made once, since
// a closure made for each call would be an allocation each. It is used by the goroutine
// that owns the connection.
type socket struct {
	raw      syscall.RawConn // nil if the connection has none
	recvPeek func(fd uintptr)
	activity activity // what recvPeek found
	peeked   [1]byte  // what it read

	turn   func(fd uintptr) (done bool) // of await, for which the rest is too
	reused bool
	head   *[]byte // nil when it was written
	waits  bool    // turn has been called before
	sent   int     // bytes of head that were written
	err    error
}

func newSocket(c net.Conn) *socket {
	s := &socket{}
	if c, ok := c.(syscall.Conn); ok {
		s.raw, _ = c.SyscallConn()
	}
	s.recvPeek = func(fd uintptr) {
		s.activity = closed // stays so if it was closed on this side
		n, err := untilDone(sockets.Peek, fd, s.peeked[:])
		switch {
		case n > 0:
			s.activity = spoke
		case err == syscall.EAGAIN:
			s.activity = silent
		}
	}
	s.turn = func(fd uintptr) bool {
		if s.waits { // and now there is something
			return true
		}
		s.waits = true
		return s.begin(fd)
	}
	return s
}

// peek asks the kernel what the other end did. It takes no byte and doesn't wait.
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

// direct reports whether c passes bytes to the kernel as they are, so that await works.
func direct(c net.Conn) bool { return sockets.Direct(c) }

// await writes the request in head, if there is one, unless a peek finds the connection
// unfit for it, and returns when there is something to read, or the end. Reused says that
// the connection has served a request before. The runtime's poller is armed before the
// request is written, so that no read has to fail with EAGAIN first: it is cheaper than
// peek, Write and Read. When the request was written await gives the buffer back, before it
// waits, and s.head is nil.
//
// If the socket was full await returns at once, without an error.
func (s *socket) await(head *[]byte, reused bool) error {
	s.head, s.reused = head, reused
	s.waits, s.sent, s.err = false, 0, nil
	err := s.raw.Read(s.turn)
	if err == nil {
		err = s.err
	}
	return err
}

// begin is the first turn of await: it peeks and writes. It is done if there is nothing to
// wait for.
func (s *socket) begin(fd uintptr) (done bool) {
	s.recvPeek(fd)
	if s.head == nil {
		return s.activity != silent
	}
	if s.activity == closed || s.activity == spoke && s.reused {
		s.err = io.EOF
		return true
	}
	s.sent, s.err = untilDone(sockets.Write, fd, *s.head)
	if s.err == syscall.EAGAIN {
		s.err = nil
	} else if s.err != nil {
		s.err = os.NewSyscallError("write", s.err)
	}
	if s.sent < len(*s.head) {
		return true
	}
	httphead.Release(s.head)
	s.head = nil
	return s.activity == spoke // the poller may not report again what is there already
}

// untilDone repeats a system call for as long as a signal interrupts it.
func untilDone(call func(fd int, p []byte) (int, error), fd uintptr, p []byte) (n int, err error) {
	for {
		n, err = call(int(fd), p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
