//go:build !limpet_ordinary_syscalls

package upgrade

import (
	"syscall"
	"unsafe"
)

// call makes a system call that doesn't wait. It doesn't tell the scheduler, as
// package syscall does in case that the call takes its time: for calls as short as
// these that is a tenth of the cost. One that does take its time keeps its
// processor from all other goroutines meanwhile: see the package's documentation.
func call(number uintptr, fd int, p unsafe.Pointer, n int, flags uintptr) (int, error) {
	m, _, errno := syscall.RawSyscall6(number, uintptr(fd), uintptr(p), uintptr(n), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(m), nil
}
