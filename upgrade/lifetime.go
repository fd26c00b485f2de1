package upgrade

import (
	"math"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
	"github.com/limpet-go/limpet/internal/lull"
)

// One timer closes all tunnels that an idle or stall timeout, a maximum age or a drain
// ends. When it fires, closeDue closes those that are due, and sets it for the next one.

// never is longer than any tunnel is old.
const never = time.Duration(math.MaxInt64)

// A parting tells when and how a tunnel is closed.
type parting struct {
	in     time.Duration // from now
	grace  time.Duration // how long it may wait for a lull then
	code   int
	reason string
}

// close closes t, whose time has come.
func (d parting) close(t *Tunnel) { t.close(d.code, d.reason, d.grace) }

// parting returns how a tunnel that is served will be closed, as things are. p.mu is held.
func (p *Proxy) parting(t *Tunnel, now time.Duration) parting {
	first := parting{in: never}
	sooner := func(in, grace time.Duration, code int, reason string) {
		if in < first.in {
			first = parting{in, grace, code, reason}
		}
	}
	if p.IdleTimeout > 0 {
		sooner(p.IdleTimeout-t.engine.idle(), 0, closecode.GoingAway, "idle")
	}
	if p.StallTimeout > 0 {
		sooner(p.StallTimeout-t.engine.stalled(), 0, closecode.TryAgainLater, "client takes nothing")
	}
	if p.MaxAge > 0 {
		age := p.MaxAge - time.Duration(t.ageJitter*float32(p.MaxAge/10))
		sooner(t.began+age-now, lull.Most, closecode.ServiceRestart, "maximum age")
	}
	drain := func(d drain) {
		turn := time.Duration(t.opts.Turn * float64(d.within))
		sooner(d.start+turn-now, d.end()-now, d.code, d.reason)
	}
	if d, ok := p.drains[t.opts.Group]; ok && t.began <= d.end() {
		drain(d)
	}
	if p.all != nil && !(p.all.stuck && movable(t.engine)) { // a tunnel that opens behind its end is closed at once
		drain(*p.all)
	}
	return first
}

// watch has closeDue look after a tunnel that is served from now on. One that is due
// already it closes.
func (p *Proxy) watch(t *Tunnel) {
	p.mu.Lock()
	d := p.parting(t, p.now())
	t.watched = d.in > 0
	if t.watched {
		p.schedule(d.in)
	}
	p.mu.Unlock()
	if d.in <= 0 {
		d.close(t)
	}
}

// closeDue closes the tunnels that are due. The timer calls it, and whoever begins a
// drain.
func (p *Proxy) closeDue() {
	var due []func()
	p.mu.Lock()
	now := p.now()
	ended, next := p.endedDrains(now)
	for t := p.first; t != nil; t = t.next {
		if !t.watched {
			if d, ok := ended[t.opts.Group]; ok && t.began <= d.end() {
				// This tunnel isn't served yet. The drain of its group is kept, so that
				// watch closes the tunnel when it is.
				delete(ended, t.opts.Group)
				next = min(next, time.Second)
			}
			if all := p.all; all != nil && all.end() <= now {
				due = append(due, func() { t.hurry(all) })
			}
			continue
		}
		if d := p.parting(t, now); d.in <= 0 {
			t.watched = false
			due = append(due, func() { d.close(t) })
		} else {
			next = min(next, d.in)
		}
	}
	for group := range ended {
		delete(p.drains, group)
	}
	// The pause is 50 times as long as this scan took, but one second at most, so that
	// scans take about 2% of the time, however many tunnels there are.
	p.alarm = 0
	p.schedule(max(next, min(50*(p.now()-now), time.Second)))
	p.mu.Unlock()
	for _, end := range due {
		end()
	}
}

// hurry closes t if it is served and still waits for a lull, since d is over.
func (t *Tunnel) hurry(d *drain) {
	t.mu.Lock()
	engine := t.engine
	t.mu.Unlock()
	if engine != nil {
		engine.close(d.code, d.reason, 0)
	}
}

// endedDrains returns the drains whose time is over, and in how long that of the next
// one will be. p.mu is held.
func (p *Proxy) endedDrains(now time.Duration) (ended map[string]drain, next time.Duration) {
	next = never
	for group, d := range p.drains {
		if d.end() >= now {
			next = min(next, d.end()-now+1)
			continue
		}
		if ended == nil {
			ended = make(map[string]drain)
		}
		ended[group] = d
	}
	return ended, next
}

// schedule has closeDue called within that time. p.mu is held.
func (p *Proxy) schedule(in time.Duration) {
	if in == never {
		return
	}
	at := p.now() + in
	switch {
	case p.alarm != 0 && p.alarm <= at:
		return
	case p.timer == nil:
		p.timer = time.AfterFunc(in, p.closeDue)
	default:
		p.timer.Reset(in)
	}
	p.alarm = at
}
