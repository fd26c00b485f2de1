package middleware

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// ages looks for tunnels that are cut at the same age, as timeouts of proxies do it. It has
// the ages of the last tunnels that ended without a close frame.
//
// Many tunnels that were opened together are cut together when a network fails or a proxy
// restarts. That is one event, so of each second only the first tunnel counts.
type ages struct {
	mu   sync.Mutex
	last [agesKept]time.Duration
	n    int       // number of ages that were ever kept
	at   time.Time // when the last one was
}

const (
	agesKept  = 16
	agesAlike = 12              // so many of the last ones are alike if a timeout cuts them
	ageLeast  = 5 * time.Second // who leaves sooner has hardly stayed
)

// tunnelEnded looks at the end of a tunnel. A close frame, also one of the gateway's own,
// tells that an end, or the gateway, has wanted it. A backend that breaks off without one
// has the gateway's own frame sent to the client.
func (d *doctor) tunnelEnded(s upgrade.Summary) {
	cut := s.By == upgrade.SideClient && s.Code == 0 || s.By == upgrade.SideBackend && s.Err != nil
	if !cut || s.Duration < ageLeast || !d.ages.mu.TryLock() {
		return
	}
	defer d.ages.mu.Unlock()
	a := &d.ages
	now := time.Now()
	if a.n > 0 && now.Sub(a.at) < time.Second {
		return
	}
	a.last[a.n%agesKept] = s.Duration
	a.at = now
	if a.n++; a.n < agesKept {
		return
	}
	age, alike := a.common()
	if !alike || !d.first(regularTunnelAge) {
		return
	}
	side := "in front of the gateway"
	if s.By == upgrade.SideBackend {
		side = "between the gateway and the backends"
	}
	d.report(regularTunnelAge, fmt.Sprintf("tunnels are cut when they are %v old, without a close frame: a timeout of a proxy %s seems to do it", age.Round(time.Second), side),
		"set this timeout above pingInterval + pingTimeout, 45 s in Socket.IO, if it is for idle connections (proxy_read_timeout in nginx, the idle timeout of a load balancer), "+
			"and as high as possible if it is for all; or ping more often", "age", age, "by", s.By.String())
}

// common returns the age that most of the last tunnels had, give or take a fiftieth of it,
// or half a second.
func (a *ages) common() (age time.Duration, ok bool) {
	sorted := a.last
	slices.Sort(sorted[:])
	for i := agesAlike - 1; i < agesKept; i++ {
		low := sorted[i-agesAlike+1]
		if sorted[i]-low <= max(low/25, time.Second) {
			return sorted[i-agesAlike/2], true
		}
	}
	return 0, false
}
