package upgrade

import (
	"math/rand/v2"
	"time"
)

// startWatch begins to watch IdleTimeout and MaxAge. t.mu is held.
func (t *Tunnel) startWatch() {
	idle, age := t.proxy.IdleTimeout, t.proxy.MaxAge
	if idle <= 0 && age <= 0 {
		return
	}
	var dies time.Time
	if age > 0 {
		dies = time.Now().Add(age - time.Duration(rand.Float64()*float64(age)/10))
	}
	t.watch = time.AfterFunc(t.check(idle, dies), func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.ended {
			return
		}
		if next := t.check(idle, dies); next > 0 {
			t.watch.Reset(next)
		}
	})
}

// check closes a tunnel that has been idle for too long, or alive, and returns
// how long it has otherwise, at least. t.mu is held.
func (t *Tunnel) check(idle time.Duration, dies time.Time) time.Duration {
	var next time.Duration
	if idle > 0 {
		if next = idle - t.relay.idle(); next <= 0 {
			t.relay.close(1001, "idle")
			return 0
		}
	}
	if !dies.IsZero() {
		left := time.Until(dies)
		if left <= 0 {
			t.relay.close(1012, "maximum age")
			return 0
		}
		if next == 0 || left < next {
			next = left
		}
	}
	return next
}
