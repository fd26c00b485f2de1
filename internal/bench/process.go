//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// A process is a program in a process group of its own, with its children.
type process struct {
	cmd  *exec.Cmd
	said *bytes.Buffer // to be read once it has ended
	pids []int

	ended chan struct{}
}

// start starts a program on these cores, nil for any. It is asked to end should
// this process die before stop.
func start(cmd *exec.Cmd, cores cpuSet) (*process, error) {
	p := &process{cmd: cmd, said: &bytes.Buffer{}, ended: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = p.said
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.said
	}
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	// A child has the cores of the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if cores != nil {
		before, err := allowed()
		if err == nil {
			err = cores.pin(0)
		}
		if err != nil {
			return nil, err
		}
		defer before.pin(0)
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// stop kills the process and its children, and waits for it.
func (p *process) stop() {
	select {
	case <-p.ended: // its number may be another's already
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
	}
}

// count finds the children that the process has started so far.
func (p *process) count() error {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	p.pids = nil
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // has ended
		}
		// pid (name) state parent group …; the name may hold anything.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 2 && fields[2] == strconv.Itoa(p.cmd.Process.Pid) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			p.pids = append(p.pids, pid)
		}
	}
	if len(p.pids) == 0 {
		return fmt.Errorf("%s has ended", p.cmd.Path)
	}
	return nil
}

// cpu returns the processor time, user and system, of the process and its
// children. It reads their clocks, as /proc/PID/stat counts in hundredths of a
// second.
func (p *process) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range p.pids {
		clock := int32(^pid)<<3 | 2 // clock_getcpuclockid(3)
		var now syscall.Timespec
		if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&now)), 0); errno != 0 {
			return 0, fmt.Errorf("%s: processor time of process %d: %w", p.cmd.Path, pid, errno)
		}
		sum += time.Duration(now.Nano())
	}
	return sum, nil
}

// memory returns the proportional set size of the process and its children, in
// bytes: pages that several of them share count once.
func (p *process) memory() (int64, error) {
	var sum int64
	for _, pid := range p.pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		_, rest, ok := strings.Cut(string(text), "\nPss:")
		fields := strings.Fields(rest)
		if !ok || len(fields) == 0 {
			return 0, errors.New("smaps_rollup without Pss")
		}
		kb, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += kb << 10
	}
	return sum, nil
}

// A cpuSet is a set of processors, as of sched_setaffinity(2).
type cpuSet []uint64

func allowed() (cpuSet, error) {
	set := make(cpuSet, 16)
	n, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, uintptr(len(set)*8), uintptr(unsafe.Pointer(&set[0])))
	if errno != 0 {
		return nil, os.NewSyscallError("sched_getaffinity", errno)
	}
	return set[:n/8], nil
}

// pin restricts a thread to the set, 0 is the caller's.
func (s cpuSet) pin(thread int) error {
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(thread), uintptr(len(s)*8), uintptr(unsafe.Pointer(&s[0])))
	if errno != 0 {
		return os.NewSyscallError("sched_setaffinity", errno)
	}
	return nil
}

// split parts the last processor from the others. Both are nil if there is one
// only.
func (s cpuSet) split() (last, others cpuSet) {
	var count int
	last = make(cpuSet, len(s))
	others = append(cpuSet(nil), s...)
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

// pinAll restricts this process: the threads that it has, whose children have
// the same.
func (s cpuSet) pinAll() error {
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
