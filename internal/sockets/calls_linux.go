package sockets

import (
	"syscall"
	"unsafe"
)

// Receive reads from a socket that doesn't block. Like Send and Ready it never waits.
func Receive(fd int, b []byte) (int, error) { return transfer(receiveCall, fd, b) }

// Send writes to a socket that doesn't block.
func Send(fd int, b []byte) (int, error) { return transfer(sendCall, fd, b) }

// transfer makes a call that reads or writes. MSG_DONTWAIT is for a socket that somebody
// has made blocking since.
func transfer(number uintptr, fd int, b []byte) (int, error) {
	return call(number, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

// Ready returns how many events there are now, without waiting for one.
func Ready(epoll int, events []syscall.EpollEvent) (int, error) {
	return call(syscall.SYS_EPOLL_PWAIT, epoll, unsafe.Pointer(unsafe.SliceData(events)), len(events), 0)
}

// Duplicate returns another descriptor of a socket.
func Duplicate(fd uintptr) (int, error) {
	other, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(other), nil
}
