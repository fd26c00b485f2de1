//go:build limpet_ordinary_syscalls

package sockets

import (
	"syscall"
	"unsafe"
)

// call makes a system call that doesn't wait, and tells the scheduler, in case it
// takes long all the same.
func call(number uintptr, fd int, p unsafe.Pointer, n int, flags uintptr) (int, error) {
	m, _, errno := syscall.Syscall6(number, uintptr(fd), uintptr(p), uintptr(n), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(m), nil
}
