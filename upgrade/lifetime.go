package upgrade

import (
	"math"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
)

// What ends tunnels in their time is one timer for all of them: it looks which
// are due, and when the next one will be.

const never = time.Duration(math.MaxInt64)

// left returns for how long a tunnel that is served may stay, as things are, and
// what it is closed with then. p.mu is held.
func (p *Proxy) left(t *Tunnel, now time.Duration) (left time.Duration, code int, reason string) {
	left = never
	sooner := func(in time.Duration, c int, r string) {
		if in < left {
			left, code, reason = in, c, r
		}
	}
	if p.IdleTimeout > 0 {
		sooner(p.IdleTimeout-t.relay.idle(), closecode.GoingAway, "idle")
	}
	if p.MaxAge > 0 {
		age := p.MaxAge - time.Duration(t.young*float32(p.MaxAge/10))
		sooner(t.began+age-now, closecode.ServiceRestart, "maximum age")
	}
	drain := func(d drain) {
		if t.began <= d.end() {
			turn := time.Duration(t.opts.Turn * float64(d.within))
			sooner(d.start+turn-now, d.code, d.reason)
		}
	}
	if d, ok := p.drains[t.opts.Group]; ok {
		drain(d)
	}
	if p.last != nil {
		drain(*p.last)
	}
	return left, code, reason
}

// watch has a tunnel that is now served end in its time.
func (p *Proxy) watch(t *Tunnel) {
	p.mu.Lock()
	left, code, reason := p.left(t, p.now())
	t.watched = left > 0
	if t.watched {
		p.wind(left)
	}
	p.mu.Unlock()
	if left <= 0 {
		t.relay.close(code, reason)
	}
}

// look closes the tunnels that are due.
func (p *Proxy) look() {
	var due []func()
	p.mu.Lock()
	now := p.now()
	spent, next := p.spent(now)
	for t := p.first; t != nil; t = t.next {
		if !t.watched {
			if d, ok := spent[t.opts.Group]; ok && t.began <= d.end() {
				delete(spent, t.opts.Group) // it may be served yet, and leaves then
				next = min(next, time.Second)
			}
			continue
		}
		left, code, reason := p.left(t, now)
		if left <= 0 {
			t.watched = false
			due = append(due, func() { t.relay.close(code, reason) })
		} else {
			next = min(next, left)
		}
	}
	for group := range spent {
		delete(p.drains, group)
	}
	// However many there are, looking at them takes a fiftieth of the time at most.
	p.alarm = 0
	p.wind(max(next, min(50*(p.now()-now), time.Second)))
	p.mu.Unlock()
	for _, end := range due {
		end()
	}
}

// spent returns the drains whose time is over, and in how long that of another one
// will be. p.mu is held.
func (p *Proxy) spent(now time.Duration) (spent map[string]drain, next time.Duration) {
	next = never
	for group, d := range p.drains {
		if d.end() >= now {
			next = min(next, d.end()-now+1)
			continue
		}
		if spent == nil {
			spent = make(map[string]drain)
		}
		spent[group] = d
	}
	return spent, next
}

// wind has look called by then. p.mu is held.
func (p *Proxy) wind(in time.Duration) {
	if in == never {
		return
	}
	at := p.now() + in
	switch {
	case p.alarm != 0 && p.alarm <= at:
		return
	case p.timer == nil:
		p.timer = time.AfterFunc(in, p.look)
	default:
		p.timer.Reset(in)
	}
	p.alarm = at
}
