package middleware

import (
	"sync"
	"time"
)

// later calls one function again and again, each time when schedule says so. The zero value is
// ready.
type later struct {
	mu    sync.Mutex // guards what follows
	timer *time.Timer
	stops bool // no call begins any more
}

// schedule has f called once within that time, instead of at the time that was set before. It
// must always be the same f.
func (l *later) schedule(in time.Duration, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.stops:
	case l.timer == nil:
		l.timer = time.AfterFunc(in, f)
	default:
		l.timer.Reset(in)
	}
}

// stop keeps calls from beginning.
func (l *later) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stops = true
	if l.timer != nil {
		l.timer.Stop()
	}
}
