package upgrade

import (
	"net"
	"syscall"
	"unsafe"
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
	err = raw.Control(func(old uintptr) {
		new, _, errno := syscall.Syscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0)
		fd, ok = int(new), errno == 0
	})
	if !ok || err != nil {
		return 0, false
	}
	if syscall.SetNonblock(fd, true) != nil {
		syscall.Close(fd)
		return 0, false
	}
	return fd, true
}

// read reads from a descriptor that doesn't block.
func read(fd int, b []byte) (int, error) { return transfer(receive, fd, b) }

// write writes to a descriptor that doesn't block.
func write(fd int, b []byte) (int, error) { return transfer(send, fd, b) }

// transfer makes a call that reads or writes. MSG_DONTWAIT is for a socket that somebody
// has made blocking since.
func transfer(number uintptr, fd int, b []byte) (int, error) {
	return call(number, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

// ready returns how many events there are now, without waiting for one.
func ready(epoll int, events []syscall.EpollEvent) (int, error) {
	return call(syscall.SYS_EPOLL_PWAIT, epoll, unsafe.Pointer(unsafe.SliceData(events)), len(events), 0)
}
