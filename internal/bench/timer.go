//go:build linux

package main

import (
	"encoding/binary"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// every calls tick each so often, with the number of times that have passed since
// the last call, until it returns false. A timer of the kernel does it: waiting
// for events knows milliseconds only.
func (l *loop) every(d time.Duration, tick func(times int) bool) error {
	const monotonic, nonblock = 1, syscall.O_NONBLOCK | syscall.O_CLOEXEC // of timerfd_create(2)
	fd, _, errno := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, monotonic, nonblock, 0)
	if errno != 0 {
		return os.NewSyscallError("timerfd_create", errno)
	}
	spec := [2]syscall.Timespec{syscall.NsecToTimespec(d.Nanoseconds()), syscall.NsecToTimespec(d.Nanoseconds())}
	if _, _, errno := syscall.Syscall6(syscall.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0); errno != 0 {
		syscall.Close(int(fd))
		return os.NewSyscallError("timerfd_settime", errno)
	}
	c, err := l.add(int(fd))
	if err != nil {
		return err
	}
	c.ready = func() {
		var times [8]byte
		if n, _ := syscall.Read(c.fd, times[:]); n == len(times) && !tick(int(binary.NativeEndian.Uint64(times[:]))) {
			c.close()
		}
	}
	return nil
}
