package upgrade

import (
	"iter"
	"math/rand/v2"
	"time"
)

// Tunnels iterates over the tunnels that are between Connect and their end, in no
// order. A tunnel that opens or ends during the iteration may be left out.
func (p *Proxy) Tunnels() iter.Seq[*Tunnel] {
	return func(yield func(*Tunnel) bool) {
		p.mu.Lock()
		all := make([]*Tunnel, 0, p.open)
		for t := p.first; t != nil; t = t.next {
			all = append(all, t)
		}
		p.mu.Unlock()
		for _, t := range all {
			if !yield(t) {
				return
			}
		}
	}
}

// now returns the time as the proxy counts it. p.mu is held.
func (p *Proxy) now() time.Duration {
	if p.epoch.IsZero() {
		p.epoch = time.Now()
	}
	return time.Since(p.epoch)
}

// begin counts a Connect in, and reports false if Shutdown has begun. What it counts,
// remove counts out.
func (p *Proxy) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.open++
	return true
}

// add adds t to the registry, and reports false if Shutdown is over. A handshake that was
// under way when Shutdown began is completed, and its tunnel closed at its moment: the
// client gets a 101 and 1012, with which it connects elsewhere at once, and no 503.
func (p *Proxy) add(t *Tunnel) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return false
	}
	t.began, t.ageJitter = (max(p.now(), p.next)+1)&^1, rand.Float32()
	p.next = t.began + 1
	p.link(t)
	return true
}

// adopt adds t, which began that long ago in another process, and reports false if Shutdown
// has begun. What it counts, remove counts out.
func (p *Proxy) adopt(t *Tunnel, age time.Duration) bool {
	if !p.begin() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// The end of began, to a millisecond, is odd as with no tunnel that began here, and a number
	// that no other one of the same millisecond has.
	const end = 1<<20 - 1
	p.adopted++
	t.began = (p.now()-age)&^end | (2*p.adopted+1)&end
	p.link(t)
	return true
}

// link puts t into the list of tunnels. p.mu is held.
func (p *Proxy) link(t *Tunnel) {
	if t.next = p.first; t.next != nil {
		t.next.prev = t
	}
	p.first = t
}

// forget removes t from the registry and returns its age.
func (p *Proxy) forget(t *Tunnel) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.next != nil {
		t.next.prev = t.prev
	}
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		p.first = t.next
	}
	t.prev, t.next = nil, nil
	if p.first == nil && len(p.drains) == 0 && p.timer != nil {
		p.timer.Stop()
		p.alarm = 0
	}
	return max(0, p.now()-t.began)
}

// remove counts a tunnel out, or a Connect that has failed. It is called after Closed has
// returned, so that Shutdown waits for that.
func (p *Proxy) remove() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open--; p.open == 0 && p.gone != nil {
		close(p.gone)
	}
}

// ageOf returns how old t is.
func (p *Proxy) ageOf(t *Tunnel) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now() - t.began
}
