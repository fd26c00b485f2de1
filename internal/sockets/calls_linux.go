//go:build !race && !386 && !limpet_ordinary_syscalls

package sockets

import (
	"syscall"
	"unsafe"
)

// These calls never wait, and are made without telling the scheduler, which is there for
// calls that take long. Package upgrade says where that is no good, and has the same build
// tag.

// most is how many bytes such a call may copy.
const most = 64 << 10

// receive reads from a socket. The system call is that for sockets: it is a little cheaper
// than read, and takes MSG_DONTWAIT, in case somebody has made the socket blocking.
func receive(fd int, b []byte) (int, error) {
	if len(b) > most {
		return syscall.Read(fd, b)
	}
	return call(syscall.SYS_RECVFROM, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b), syscall.MSG_DONTWAIT)
}

// send writes to a socket.
func send(fd int, b []byte) (int, error) {
	if len(b) > most {
		return syscall.Write(fd, b)
	}
	return call(syscall.SYS_SENDTO, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

// ready returns the events that there are now.
func ready(epoll int, events []syscall.EpollEvent) (int, error) {
	return call(syscall.SYS_EPOLL_PWAIT, epoll, unsafe.Pointer(unsafe.SliceData(events)), len(events), 0)
}

func call(number uintptr, fd int, p unsafe.Pointer, n int, flags uintptr) (int, error) {
	m, _, errno := syscall.RawSyscall6(number, uintptr(fd), uintptr(p), uintptr(n), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(m), nil
}
