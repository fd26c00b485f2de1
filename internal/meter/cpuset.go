//go:build linux

package meter

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// A CPUSet is a set of processors, as of sched_setaffinity(2).
type CPUSet []uint64

// Allowed returns the processors that this thread may use.
func Allowed() (CPUSet, error) {
	set := make(CPUSet, 16)
	n, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, uintptr(len(set)*8), uintptr(unsafe.Pointer(&set[0])))
	if errno != 0 {
		return nil, os.NewSyscallError("sched_getaffinity", errno)
	}
	return set[:n/8], nil
}

// pin restricts a thread to the set, 0 is the caller's.
func (s CPUSet) pin(thread int) error {
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(thread), uintptr(len(s)*8), uintptr(unsafe.Pointer(&s[0])))
	if errno != 0 {
		return os.NewSyscallError("sched_setaffinity", errno)
	}
	return nil
}

// Split parts the last processor from the others. Both are nil if there is one
// only.
func (s CPUSet) Split() (last, others CPUSet) {
	var count int
	last = make(CPUSet, len(s))
	others = append(CPUSet(nil), s...)
	for i := range 64 * len(s) {
		if s[i/64]>>(i%64)&1 == 1 {
			count++
			clear(last)
			last[i/64] = 1 << (i % 64)
		}
	}
	if count < 2 {
		return nil, nil
	}
	for i := range others {
		others[i] &^= last[i]
	}
	return last, others
}

// PinAll restricts this process: the threads that it has, whose children have
// the same.
func (s CPUSet) PinAll() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		if id, err := strconv.Atoi(task.Name()); err == nil {
			if err := s.pin(id); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
	}
	return nil
}
