//go:build !limpet_ordinary_syscalls

package sockets

import (
	"syscall"
	"unsafe"
)

// call makes a system call that doesn't wait. Unlike package syscall it doesn't tell
// the scheduler, which is there for calls that take long: for calls as short as these
// that would be a tenth of the cost. A call that does take long keeps its processor
// from all other goroutines meanwhile: see the documentation of package upgrade.
func call(number uintptr, fd int, p unsafe.Pointer, n int, flags uintptr) (int, error) {
	m, _, errno := syscall.RawSyscall6(number, uintptr(fd), uintptr(p), uintptr(n), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(m), nil
}
