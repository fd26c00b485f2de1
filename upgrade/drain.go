package upgrade

import (
	"context"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
)

// A drain is the closing of many tunnels, spread over a time.
type drain struct {
	code          int
	reason        string
	start, within time.Duration // start is counted from the proxy's epoch
	stuck         bool          // it concerns those tunnels only that another process can't go on with
}

// end returns when the drain is over. It concerns the tunnels that began by then.
func (d drain) end() time.Duration { return d.start + d.within }

// CloseGroup closes the tunnels of a group at once, each as [Tunnel.Close] does, and
// ends a drain of the group. It returns at once.
func (p *Proxy) CloseGroup(group string, code int, reason string) {
	p.UndrainGroup(group)
	for t := range p.Tunnels() {
		if t.opts.Group == group {
			t.Close(code, reason)
		}
	}
}

// DrainGroup closes the tunnels of a group as [Tunnel.CloseGracefully] does, spread over a
// time: each at its moment, within × [ConnectOptions].Turn from now. The second for which a
// tunnel may wait then for the answer to a message doesn't outlast within. A tunnel of the
// group that opens before that time is over is closed at its moment too, at once if
// that has passed. A new drain of a group takes the place of the one before. With
// within 0 or less DrainGroup is [Proxy.CloseGroup]. It returns at once.
func (p *Proxy) DrainGroup(group string, code int, reason string, within time.Duration) {
	if within <= 0 {
		p.CloseGroup(group, code, reason)
		return
	}
	p.drainGroup(group, drain{code: code, reason: reason, within: within}, 0)
}

// DrainGroupSince is DrainGroup that began at a moment in the past. Tunnels whose moment has
// passed are closed at once.
func (p *Proxy) DrainGroupSince(group string, code int, reason string, since time.Time, within time.Duration) {
	p.drainGroup(group, drain{code: code, reason: reason, within: within}, max(0, time.Since(since)))
}

// drainGroup begins d, that long ago.
func (p *Proxy) drainGroup(group string, d drain, ago time.Duration) {
	p.mu.Lock()
	if p.drains == nil {
		p.drains = make(map[string]drain)
	}
	d.start = p.now() - ago
	p.drains[group] = d
	p.mu.Unlock()
	p.closeDue()
}

// UndrainGroup ends a drain of a group: the tunnels whose moment has not come stay.
func (p *Proxy) UndrainGroup(group string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.drains, group)
}

// DrainAll closes the tunnels of all groups as [Tunnel.CloseGracefully] does, spread over a
// time: each at its moment, within × [ConnectOptions].Turn from now, or up to a second later
// but not behind within. With within 0 or less all are closed at once. Tunnels may still be
// opened, and are closed at their moment too, at once if that has passed. Nothing ends a
// DrainAll, and the one that ends first counts. It returns at once. A program that is about
// to end calls it while its server still serves, and [Proxy.Shutdown] when no handler runs
// any more, so that no client is refused whom another program would have served.
func (p *Proxy) DrainAll(code int, reason string, within time.Duration) {
	p.mu.Lock()
	p.drainAll(drain{code: code, reason: reason, within: max(within, 0)})
	p.mu.Unlock()
	p.closeDue()
}

// DrainStuck is DrainAll for those tunnels only that another process can't go on with: see
// [Proxy.Freeze].
func (p *Proxy) DrainStuck(code int, reason string, within time.Duration) {
	p.mu.Lock()
	p.drainAll(drain{code: code, reason: reason, within: max(within, 0), stuck: true})
	p.mu.Unlock()
	p.closeDue()
}

// drainAll begins d for all groups, unless a drain that ends sooner is under way. One of all
// tunnels takes the place of a DrainStuck. p.mu is held.
func (p *Proxy) drainAll(d drain) {
	d.start = p.now()
	if p.all == nil || p.all.stuck && !d.stuck || d.end() < p.all.end() {
		p.all = &d
	}
}

// Shutdown refuses new tunnels and closes the open ones with 1012 (Service Restart).
// If ctx has a deadline, each tunnel is closed at its moment (see Turn of
// [ConnectOptions]) in the time that is left, as [Proxy.DrainAll] does it, so that the
// clients don't all come back at once; otherwise all are closed at once. If [Proxy.DrainAll]
// was called, tunnels keep the moments that they have by that, unless it ends later.
//
// A handshake that is under way is completed, and its tunnel closed at its moment or at
// once. Shutdown returns nil when all tunnels are gone, and no handshake is under way. If
// ctx ends before, it cuts the tunnels that are left and returns the cause.
func (p *Proxy) Shutdown(ctx context.Context) error {
	d := drain{code: closecode.ServiceRestart, reason: "shutting down"}
	if deadline, ok := ctx.Deadline(); ok {
		// The last tunnel to be closed needs time for its close frame too.
		left := time.Until(deadline)
		d.within = max(left-min(frameTime+discardTime, left/2), 0)
	}
	p.mu.Lock()
	p.closed = true
	if p.gone == nil {
		p.gone = make(chan struct{})
		if p.open == 0 {
			close(p.gone)
		}
	}
	p.drainAll(d)
	p.mu.Unlock()
	p.closeDue()
	select {
	case <-p.gone:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	for t := range p.Tunnels() {
		t.cut()
	}
	return context.Cause(ctx)
}
