//go:build !386

package balancer

import (
	"syscall"
	"unsafe"
)

// The calls of a socket's ask. None of them waits, and the scheduler isn't told of
// them as package syscall does in case that one takes its time: for a request's few
// hundred bytes that is a fortieth of all that a plain request costs. It is told
// when there is more to write.

func receive(fd int, p []byte, flags int) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		uintptr(flags|syscall.MSG_DONTWAIT), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func send(fd int, p []byte) (int, error) {
	if len(p) > 16<<10 {
		return syscall.Write(fd, p)
	}
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
