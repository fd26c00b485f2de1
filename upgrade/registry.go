package upgrade

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// Tunnels iterates over the tunnels between Connect and their end, in no order.
// One that opens or ends meanwhile may be left out.
func (p *Proxy) Tunnels() iter.Seq[*Tunnel] {
	return func(yield func(*Tunnel) bool) {
		p.mu.Lock()
		all := slices.Collect(maps.Keys(p.tunnels))
		p.mu.Unlock()
		for _, t := range all {
			if !yield(t) {
				return
			}
		}
	}
}

// add takes t into the registry. If Shutdown has begun it reports false, and t
// is to be closed. Shutdown and CloseGroup first leave word and then look for
// tunnels, add and join look for word last: no tunnel slips through.
func (p *Proxy) add(t *Tunnel) bool {
	p.open.Add(1)
	p.mu.Lock()
	if p.tunnels == nil {
		p.tunnels = make(map[*Tunnel]struct{})
	}
	p.tunnels[t] = struct{}{}
	p.mu.Unlock()
	return !p.closed.Load()
}

func (p *Proxy) forget(t *Tunnel) {
	p.mu.Lock()
	delete(p.tunnels, t)
	p.mu.Unlock()
}

// join has a tunnel that is now served take part in the closing of its group.
func (p *Proxy) join(t *Tunnel) {
	if d, ok := p.drains.Load(t.opts.Group); ok {
		d.(*drain).schedule(t)
	}
}

// remove counts a tunnel out, when all is done for it.
func (p *Proxy) remove() {
	if p.open.Add(-1) == 0 && p.closed.Load() {
		p.allGone.Do(func() { close(p.gone) })
	}
}

// relay hands a tunnel to the engine that is right for its connections.
func (p *Proxy) relay(l link) relay {
	if r := p.loops.start(l); r != nil {
		return r
	}
	return pump{}.start(l)
}

// drain is the closing of many tunnels, spread over a time.
type drain struct {
	code   int
	reason string
	start  time.Time
	over   time.Duration

	reopened atomic.Bool
}

// leaving is a closing that is to come.
type leaving struct {
	*time.Timer
	at time.Time
}

// schedule closes t at its moment. One that is not served yet gets it from join,
// when its turn is known, or is refused by Serve. Once Shutdown has begun, the
// earlier of two moments holds.
func (d *drain) schedule(t *Tunnel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	turn := d.start.Add(time.Duration(t.opts.Turn * float64(d.over)))
	if t.ended || t.relay == nil || d.reopened.Load() || time.Now().After(d.start.Add(d.over)) {
		return
	}
	if t.leave != nil {
		if t.proxy.closed.Load() && t.leave.at.Before(turn) {
			return
		}
		t.leave.Stop()
	}
	t.leave = &leaving{time.AfterFunc(time.Until(turn), func() { t.Close(d.code, d.reason) }), turn}
}

// CloseGroup closes the tunnels of a group as [Tunnel.Close] does: all at once
// if over is 0, else each at its moment, over × [Options].Turn from now. A tunnel
// of the group that opens before that time is over leaves at its moment too, at
// once if that has passed. CloseGroup returns at once.
func (p *Proxy) CloseGroup(group string, code int, reason string, over time.Duration) {
	d := &drain{code: code, reason: reason, start: time.Now(), over: over}
	if over > 0 {
		p.drains.Store(group, d)
	}
	for t := range p.Tunnels() {
		switch {
		case t.opts.Group != group:
		case over > 0:
			d.schedule(t)
		default:
			t.Close(code, reason)
		}
	}
}

// Reopen takes back what [Proxy.CloseGroup] spreads over time: the tunnels whose
// moment has not come stay.
func (p *Proxy) Reopen(group string) {
	if d, ok := p.drains.LoadAndDelete(group); ok {
		d.(*drain).reopened.Store(true) // for join, which may be about to schedule
	}
	if p.closed.Load() {
		return // what Shutdown has scheduled is not to be taken back
	}
	for t := range p.Tunnels() {
		if t.opts.Group == group {
			t.mu.Lock()
			if t.leave != nil {
				t.leave.Stop()
				t.leave = nil
			}
			t.mu.Unlock()
		}
	}
}

// Shutdown refuses new tunnels and closes those there are with 1012 (Service
// Restart): at once if ctx has no deadline, else each at its moment in the time
// that is left, so that the clients don't come back in a crowd. It returns nil
// when all tunnels are gone, or what ended ctx, and then cuts those that are left.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.shutdown.Do(func() {
		p.gone = make(chan struct{})
		p.closed.Store(true)
	})
	if p.open.Load() == 0 {
		p.allGone.Do(func() { close(p.gone) })
	}
	d := drain{code: 1012, reason: "shutting down", start: time.Now()}
	if deadline, ok := ctx.Deadline(); ok {
		// The last one needs time for its close as well.
		left := time.Until(deadline)
		d.over = left - min(frameTime+drainTime, left/2)
	}
	for t := range p.Tunnels() {
		if d.over > 0 {
			d.schedule(t)
		} else {
			t.Close(d.code, d.reason)
		}
	}
	select {
	case <-p.gone:
		return nil
	case <-ctx.Done():
	}
	for t := range p.Tunnels() {
		t.cut()
	}
	return context.Cause(ctx)
}
