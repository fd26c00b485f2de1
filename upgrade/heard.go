package upgrade

import "time"

// Heard returns the number of the group's tunnels that wait for bytes of their backend, and
// when the last byte came from a backend on one of them, the zero time if none waits. When a
// backend's process is gone, its kernel ends all connections at once, and none of its tunnels
// waits any more. A machine that has lost its power ends none, and nothing comes from it.
//
// Not counted are tunnels that aren't served yet, those that are closing, and those whose
// client has no room for what came before: they don't look at their backend. Nor does what
// the kernel has held back for such a client count as a byte that came. Heard looks at all
// tunnels, so it isn't meant for the path of a request.
func (p *Proxy) Heard(group string) (waiting int, last time.Time) {
	now := time.Now()
	for t := range p.Tunnels() {
		if t.Group() != group {
			continue
		}
		t.mu.Lock()
		engine := t.engine
		t.mu.Unlock()
		if engine == nil {
			continue
		}
		waits, silent := engine.heard()
		if !waits {
			continue
		}
		waiting++
		if at := now.Add(-silent); at.After(last) {
			last = at
		}
	}
	return waiting, last
}

// heard counts a read, see Heard of [ConnectOptions]. The counter may be shared by all loops.
// Even so, to add to it costs a small part of the system call that has just read.
func (t *Tunnel) heard() {
	if n := t.opts.Heard; n != nil {
		n.Add(1)
	}
}
