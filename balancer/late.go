package balancer

// delays reports whether b is known to let new clients wait: it is stalled (see
// [Pool.ReportSlow]), or late: it is sick, and only because its checks get no answer in time.
// A late backend is Draining, and so gets no new clients, unless most are like that.
func (b *Backend) delays() bool { return b.stalled.Load() || b.late.Load() }

// takers returns the backends that get new clients, and those that get them if there is none
// of the former, each in the order of all. These are the backends that are Up and those that
// are only sick. But the late ones are among the former when more than half of both together
// delay: then it is likely that the machines are busy, as when all clients come back at once,
// and the few others would get all of them. That is what a panic threshold is in other
// balancers. The caller holds the mutex.
func takers(all []*Backend) (up, sick []*Backend) {
	sum, delaying := 0, 0
	for _, b := range all {
		if b.State() == Up || b.onlySick() && b.late.Load() {
			sum++
			if b.delays() {
				delaying++
			}
		}
	}
	busy := 2*delaying > sum
	for _, b := range all {
		switch {
		case b.State() == Up, busy && b.onlySick() && b.late.Load():
			up = append(up, b)
		case b.onlySick():
			sick = append(sick, b)
		}
	}
	return up, sick
}

// onlySick reports whether b is Draining, and nobody but its health wants that.
func (b *Backend) onlySick() bool { return b.State() == Draining && b.drain.Load() == nil }

// quick returns the backends that don't delay, or all of them if those are fewer than half.
// It returns the slice itself if it can, for which pickers keep what they have computed.
func quick(backends []*Backend) []*Backend {
	delaying := 0
	for _, b := range backends {
		if b.delays() {
			delaying++
		}
	}
	if delaying == 0 || 2*delaying > len(backends) {
		return backends
	}
	rest := make([]*Backend, 0, len(backends)-delaying)
	for _, b := range backends {
		if !b.delays() {
			rest = append(rest, b)
		}
	}
	return rest
}
