//go:build unix

package hub

import (
	"io"
	"net"
	"syscall"

	netsockets "github.com/limpet-go/limpet/internal/sockets"
)

// rawConn returns the socket of a connection, or nil if its bytes aren't those that the
// socket has. That is so for TLS, and may be for any type of another package, even if it has
// the methods of the socket within it.
func rawConn(conn net.Conn) syscall.RawConn {
	if !netsockets.Direct(conn) {
		return nil
	}
	raw, _ := conn.(syscall.Conn).SyscallConn() // fails for nil only
	return raw
}

// receive reads what the socket has. It returns false if that is nothing yet. A buffer is
// borrowed only for as long as this takes.
func (s *socket) receive(fd uintptr) bool {
	buf := received.Get().(*[4 << 10]byte)
	n, err := syscall.Read(int(fd), buf[:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), buf[:])
	}
	if n > 0 {
		s.got, s.n = buf, n
		return true
	}
	received.Put(buf)
	if err == syscall.EAGAIN {
		return false
	}
	if s.err = err; err == nil {
		s.err = io.EOF
	}
	return true
}
