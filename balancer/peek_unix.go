//go:build unix

package balancer

import (
	"net"
	"syscall"
)

// peerClosed reports whether the other end of a kept connection has closed it.
// It asks the kernel without taking a byte, so that a request isn't written to
// a backend that is gone: what was never written may be sent again, a POST too.
func peerClosed(c net.Conn) bool {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok { // *tls.Conn
		c = t.NetConn()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	closed := false
	var b [1]byte
	// Control, since Read would wait for net/http's own reading goroutine. The
	// runtime keeps sockets non-blocking, so that the call returns at once.
	_ = raw.Control(func(fd uintptr) {
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		closed = n == 0 && err == nil || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
	})
	return closed
}
