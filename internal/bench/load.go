//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A load drives one gateway from one goroutine, and counts.
type load struct {
	*loop
	ctx   context.Context
	port  int
	tls   bool
	until time.Time // no operation begins after this
	busy  int       // operations under way

	times  []time.Duration // of each operation that succeeded
	errors int
	first  error
}

func newLoad(ctx context.Context, port int, tls bool) (*load, error) {
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	return &load{loop: l, ctx: ctx, port: port, tls: tls, times: make([]time.Duration, 0, 1<<16)}, nil
}

// patience is how long the last operations may take once no more begin.
const patience = 20 * time.Second

// drive begins operations by calling start, has them go on for this time, and
// waits until the last one has ended.
func (l *load) drive(d time.Duration, start func()) error {
	l.until = time.Now().Add(d)
	start()
	for n := 0; l.busy > 0; n++ {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		if n%64 == 0 && time.Since(l.until) > patience {
			l.fault(fmt.Errorf("%d operations without an end after %v", l.busy, patience))
			l.errors += l.busy - 1
			l.busy = 0
		}
		if err := l.turn(50 * time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// settle waits, in which time nothing is expected to come.
func (l *load) settle(d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		if err := l.turn(50 * time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// more says whether another operation may begin.
func (l *load) more() bool { return time.Now().Before(l.until) }

func (l *load) begin() time.Time {
	l.busy++
	return time.Now()
}

// end ends an operation that began at this time.
func (l *load) end(since time.Time, err error) {
	l.busy--
	if err != nil {
		l.fault(err)
		return
	}
	l.times = append(l.times, time.Since(since))
}

// fault counts an error.
func (l *load) fault(err error) {
	l.errors++
	if l.first == nil {
		l.first = err
	}
}

// percentile sorts times.
func percentile(times []time.Duration, p float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(int(p*float64(len(times))), len(times)-1)]
}
