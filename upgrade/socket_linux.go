package upgrade

import (
	"net"
	"syscall"

	"github.com/limpet-go/limpet/internal/sockets"
)

// duplicate returns a descriptor of its own for conn if that is a plain stream socket.
// Its calls don't block: whether they do is a property of the socket, and [os.File.Fd]
// of a copy of the descriptor may have changed it.
func duplicate(conn net.Conn) (fd int, ok bool) {
	switch c := conn.(type) {
	case *net.TCPConn:
	case *net.UnixConn:
		if c.LocalAddr().Network() != "unix" {
			return 0, false
		}
	default:
		return 0, false
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, false
	}
	if raw.Control(func(old uintptr) { fd, err = sockets.Duplicate(old) }) != nil || err != nil {
		return 0, false
	}
	if syscall.SetNonblock(fd, true) != nil {
		syscall.Close(fd)
		return 0, false
	}
	return fd, true
}
