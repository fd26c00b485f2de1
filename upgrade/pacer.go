package upgrade

import "time"

// A pacer holds a client to MessageRate. It is a token bucket, kept as the time at which the
// bucket will be full again (the generic cell rate algorithm, ITU-T I.371): each frame moves
// that by every, and one that would move it further than burst ahead may not pass. Times are
// counted as the engine counts them; the engine sets now before frames are fed.
type pacer struct {
	every, burst time.Duration
	full         time.Duration // when as many frames may come at once as ever
	now          time.Duration
}

// newPacer returns the pacer of a tunnel at which full was left, 0 at first. It is for a
// proxy with a MessageRate.
func (p *Proxy) newPacer(full time.Duration) pacer {
	burst := p.MessageBurst
	if burst == 0 {
		burst = 10 * p.MessageRate
	}
	every := time.Second / time.Duration(p.MessageRate)
	return pacer{every: every, burst: every * time.Duration(burst), full: full}
}

// take counts a frame that begins, and reports whether it may pass. A nil pacer lets all pass.
func (p *pacer) take() bool {
	if p == nil {
		return true
	}
	full := max(p.full, p.now) + p.every
	if full > p.now+p.burst {
		return false
	}
	p.full = full
	return true
}
