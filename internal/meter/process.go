//go:build linux

// Package meter starts the processes of a benchmark, and reads what they cost.
package meter

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

// A Process is a program in a process group of its own, with its children.
type Process struct {
	Said  *bytes.Buffer   // to be read once it has ended
	Ended <-chan struct{} // closed when it has ended

	cmd  *exec.Cmd
	pids []int
}

// Self is this process, to be measured.
func Self() *Process { return &Process{cmd: &exec.Cmd{Path: os.Args[0]}, pids: []int{os.Getpid()}} }

// Start starts a program on these processors, nil for any. It is asked to end should
// this process die before Stop.
func Start(cmd *exec.Cmd, on CPUSet) (*Process, error) {
	ended := make(chan struct{})
	p := &Process{cmd: cmd, Said: &bytes.Buffer{}, Ended: ended}
	if cmd.Stdout == nil {
		cmd.Stdout = p.Said
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.Said
	}
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	// A child has the processors of the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if on != nil {
		before, err := Allowed()
		if err == nil {
			err = on.pin(0)
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
		close(ended)
	}()
	return p, nil
}

// Stop kills the process and its children, and waits for it.
func (p *Process) Stop() {
	select {
	case <-p.Ended: // its number may be another's already
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.Ended
	}
}

// Count finds the children that the process has started so far.
func (p *Process) Count() error {
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

// CPU returns the processor time, user and system, of the process and its
// children. It reads their clocks, as /proc/PID/stat counts in hundredths of a
// second.
func (p *Process) CPU() (time.Duration, error) {
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

// Memory returns the proportional set size of the process and its children, in
// bytes: pages that several of them share count once.
func (p *Process) Memory() (int64, error) {
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
