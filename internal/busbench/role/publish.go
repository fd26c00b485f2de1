//go:build linux

package role

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// publish does what c says.
func publish(ctx context.Context, p *Peer, c Command) error {
	if c.Rate > 0 {
		return paced(ctx, p, c)
	}
	message := newMessage(c.Size, 0)
	var left atomic.Int64
	left.Store(int64(c.Publish))
	errs := make([]error, c.Publishers)
	var publishers sync.WaitGroup
	for i := range errs {
		publishers.Go(func() {
			for left.Add(-1) >= 0 && errs[i] == nil {
				errs[i] = p.Publish(ctx, c.Topic, message)
			}
		})
	}
	publishers.Wait()
	return errors.Join(errs...)
}

// paced publishes one message after the other. One that is late is published at once.
func paced(ctx context.Context, p *Peer, c Command) error {
	began := time.Now()
	for i := range c.Publish {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(c.Rate))))
		if err := p.Publish(ctx, c.Topic, newMessage(c.Size, now())); err != nil {
			return err
		}
	}
	return nil
}

// now returns the nanoseconds of CLOCK_MONOTONIC, which all processes of the machine share;
// it is Node's process.hrtime, too.
func now() int64 {
	const clockMonotonic = 1
	var t syscall.Timespec
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&t)), 0) // never fails
	return t.Nano()
}
