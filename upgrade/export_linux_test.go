package upgrade

import (
	"runtime"
	"time"
)

// Advance lets time pass for the loops of p, as synctest does for what is in
// memory.
func Advance(p *Proxy, by time.Duration) {
	defer p.look()
	p.loops.mu.Lock()
	defer p.loops.mu.Unlock()
	for _, l := range p.loops.all {
		if l != nil {
			l.mu.Lock()
			l.began = l.began.Add(-by)
			l.alarm = -1
			l.wind()
			l.mu.Unlock()
		}
	}
}

// OnLoop reports whether a tunnel is on a loop.
func OnLoop(t *Tunnel) bool {
	_, ok := t.relay.(*looped)
	return ok
}

// Waiting waits until so many are waiting to send.
func Waiting(t *Tunnel, n int) {
	u := t.relay.(*looped)
	for {
		u.loop.mu.Lock()
		have := 0
		if u.moving != nil {
			for s := u.senders; s != nil; s = s.next {
				have++
			}
		}
		u.loop.mu.Unlock()
		if have >= n {
			return
		}
		runtime.Gosched()
	}
}
