package upgrade

import (
	"context"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
)

// Tunnels iterates over the tunnels between Connect and their end, in no order.
// One that opens or ends meanwhile may be left out.
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

// now returns the time. p.mu is held.
func (p *Proxy) now() time.Duration {
	if p.epoch.IsZero() {
		p.epoch = time.Now()
	}
	return time.Since(p.epoch)
}

// add takes t into the registry, unless Shutdown has begun.
func (p *Proxy) add(t *Tunnel) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		return false
	}
	t.began, t.young = p.now(), rand.Float32()
	if t.next = p.first; t.next != nil {
		t.next.prev = t
	}
	p.first = t
	p.open++
	return true
}

// forget takes t out of the registry and returns its age.
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
	return p.now() - t.began
}

// remove counts a tunnel out, when all is done for it.
func (p *Proxy) remove() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open--; p.open == 0 && p.gone != nil {
		close(p.gone)
	}
}

// relay hands a tunnel to the engine that is right for its connections.
func (p *Proxy) relay(l link) relay {
	if !p.NoEventLoop {
		if r := p.loops.start(l); r != nil {
			return r
		}
	}
	return pump{}.start(l)
}

// frames are those that come from an end, before the first.
func (p *Proxy) frames(websocket bool, from Side) frames {
	if !websocket {
		return frames{off: true}
	}
	return frames{masked: from == Client, limit: uint64(max(0, p.MessageLimit))}
}

// drain is the closing of many tunnels, spread over a time.
type drain struct {
	code        int
	reason      string
	start, over time.Duration
}

// end is the last moment at which a tunnel may begin that the drain is for.
func (d drain) end() time.Duration { return d.start + d.over }

// CloseGroup closes the tunnels of a group as [Tunnel.Close] does: all at once
// if over is 0, else each at its moment, over × [Options].Turn from now. A tunnel
// of the group that opens before that time is over leaves at its moment too, at
// once if that has passed. It takes the place of what CloseGroup has spread for
// the group before, and returns at once.
func (p *Proxy) CloseGroup(group string, code int, reason string, over time.Duration) {
	if over > 0 {
		p.mu.Lock()
		if p.drains == nil {
			p.drains = make(map[string]drain)
		}
		p.drains[group] = drain{code, reason, p.now(), over}
		p.mu.Unlock()
		p.look()
		return
	}
	p.Reopen(group)
	for t := range p.Tunnels() {
		if t.opts.Group == group {
			t.Close(code, reason)
		}
	}
}

// Reopen takes back what [Proxy.CloseGroup] spreads over time: the tunnels whose
// moment has not come stay.
func (p *Proxy) Reopen(group string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.drains, group)
}

// Shutdown refuses new tunnels and closes those there are with 1012 (Service
// Restart): at once if ctx has no deadline, else each at its moment in the time
// that is left, so that the clients don't come back in a crowd. It returns nil
// when all tunnels are gone, or what ended ctx, and then cuts those that are left.
func (p *Proxy) Shutdown(ctx context.Context) error {
	d := drain{code: closecode.ServiceRestart, reason: "shutting down"}
	if deadline, ok := ctx.Deadline(); ok {
		// The last one needs time for its close as well.
		left := time.Until(deadline)
		d.over = left - min(frameTime+drainTime, left/2)
	}
	p.mu.Lock()
	p.closed.Store(true)
	if p.gone == nil {
		p.gone = make(chan struct{})
		if p.open == 0 {
			close(p.gone)
		}
	}
	if d.over > 0 {
		d.start = p.now()
		p.last = &d
	}
	p.mu.Unlock()
	if d.over > 0 {
		p.look()
	} else {
		for t := range p.Tunnels() {
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
