package upgrade

import (
	"net"
	"syscall"
	"unsafe"
)

// duplicate returns a descriptor of its own for a plain stream socket whose calls
// don't block. That belongs to the socket: what [os.File.Fd] does to a copy of the
// descriptor is undone here.
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

// read reads from a descriptor that doesn't block. It doesn't tell the scheduler,
// as syscall.Read does in case that the call takes its time: for calls as short
// as these that is a tenth of the cost.
func read(fd int, b []byte) (int, error) { return call(receive, fd, b) }

// write is like read.
func write(fd int, b []byte) (int, error) { return call(send, fd, b) }

func call(number uintptr, fd int, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall6(number, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// ready returns how many events there are now; like read.
func ready(epoll int, events []syscall.EpollEvent) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll),
		uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
