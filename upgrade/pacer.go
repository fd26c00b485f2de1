package upgrade

import (
	"cmp"
	"time"

	"github.com/limpet-go/limpet/internal/tokenbucket"
)

// A pacer holds a client to MessageRate. Times are counted as the engine counts them; the
// engine sets now before frames are fed.
type pacer struct {
	tokenbucket.Bucket
	full time.Duration // when as many frames may come at once as ever
	now  time.Duration
}

// newPacer returns the pacer of a tunnel at which full was left, 0 at first. It is for a
// proxy with a MessageRate.
func (p *Proxy) newPacer(full time.Duration) pacer {
	return pacer{Bucket: tokenbucket.New(p.MessageRate, cmp.Or(p.MessageBurst, 10*p.MessageRate)), full: full}
}

// take counts a frame that begins, and reports whether it may pass. A nil pacer lets all pass.
func (p *pacer) take() bool { return p == nil || p.Take(&p.full, p.now) == 0 }
