// Package within has contexts with a deadline that cost nothing unless somebody waits.
package within

import (
	"context"
	"sync"
	"time"
)

// Deadline is [context.WithDeadline], but the context has no timer and isn't known to its
// parent before somebody calls Done. A dial that need not wait for its connection only calls
// Err.
func Deadline(parent context.Context, until time.Time) (context.Context, context.CancelFunc) {
	l := &limited{Context: parent, until: until}
	return l, l.cancel
}

// limited is a context whose parts are those of its parent until it has one of its own.
type limited struct {
	context.Context
	until time.Time

	mu       sync.Mutex
	own      context.Context // nil before it is needed
	end      context.CancelFunc
	canceled bool
}

// Deadline implements [context.Context].
func (l *limited) Deadline() (time.Time, bool) {
	if sooner, ok := l.Context.Deadline(); ok && sooner.Before(l.until) {
		return sooner, true
	}
	return l.until, true
}

// Done implements [context.Context].
func (l *limited) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made().Done()
}

// Err implements [context.Context].
func (l *limited) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own == nil && !l.canceled && l.Context.Err() == nil && time.Now().Before(l.until) {
		return nil
	}
	return l.made().Err() // and that it stays
}

// Value implements [context.Context]. Package context finds by it to which context Done
// belongs.
func (l *limited) Value(key any) any {
	l.mu.Lock()
	own := l.own
	l.mu.Unlock()
	if own == nil {
		own = l.Context
	}
	return own.Value(key)
}

// made returns the context of its own. l.mu is held.
func (l *limited) made() context.Context {
	if l.own == nil {
		l.own, l.end = context.WithDeadline(l.Context, l.until)
		if l.canceled {
			l.end()
		}
	}
	return l.own
}

// cancel is the context's CancelFunc.
func (l *limited) cancel() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.canceled = true; l.end != nil {
		l.end()
	}
}
