//go:build unix

package chaos

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// allowances are how long a client may have to wait for the service because of a fault,
// on a machine that has nothing else to do: the time from when it asks until it is served
// again, without its own retry delays and pauses. A fault that isn't here allows nothing.
var allowances = map[faultKind]time.Duration{
	faultKill:    300 * time.Millisecond,
	faultStop:    1500 * time.Millisecond,
	faultDrain:   600 * time.Millisecond,
	faultGateway: 600 * time.Millisecond,
	faultRefuse:  300 * time.Millisecond,
	faultReset:   300 * time.Millisecond,
	faultHole:    1500 * time.Millisecond,
	faultSilent:  2500 * time.Millisecond,
	faultDelay:   1000 * time.Millisecond, // some round trips
	faultHalf:    300 * time.Millisecond,
	faultCut:     300 * time.Millisecond,
	faultPicky:   1000 * time.Millisecond,
	faultSlow:    1500 * time.Millisecond,
}

const (
	base   = 500 * time.Millisecond // how long any op may take
	slack  = 1.25                   // by which allowances grow, for what isn't measured
	detour = 6                      // how much longer the way through a gateway takes on a busy machine
)

// A controlGroup measures how slow the machine is, moment by moment: it sends requests to
// a node, around the gateways. By as much clients may wait longer.
type controlGroup struct {
	mu   sync.Mutex
	took []span
}

type span struct{ from, to time.Duration }

// watch sends requests to addr until ctx ends.
func (g *controlGroup) watch(ctx context.Context, h *history, addr string) {
	web := &http.Client{Transport: &http.Transport{}}
	defer web.CloseIdleConnections()
	for ctx.Err() == nil {
		from := h.now()
		res, err := web.Get("http://" + addr + "/plain?n=0")
		if err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		time.Sleep(5 * time.Millisecond)
		g.mu.Lock()
		g.took = append(g.took, span{from, h.now() - 5*time.Millisecond})
		g.mu.Unlock()
	}
}

// slowest returns the longest request of the control group between two moments.
func (g *controlGroup) slowest(from, to time.Duration) (longest time.Duration) {
	if g == nil {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.took {
		if s.to >= from && s.from <= to {
			longest = max(longest, s.to-s.from)
		}
	}
	return longest
}

// tooSlow is how long a request of the control group takes when the machine is so busy that
// health checks may run into their time limit: then anything may be taken for dead.
const tooSlow = 200 * time.Millisecond

// faults returns the times when the machine was too slow as faults.
func (g *controlGroup) faults() (slow []fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.took {
		if s.to-s.from > tooSlow {
			slow = append(slow, fault{kind: faultSlow, backend: everywhere, start: s.from, end: s.to})
		}
	}
	return slow
}

// silence returns for how long a client may have waited between two moments, with these
// faults in its way.
func (g *controlGroup) silence(from, to time.Duration, faults []fault) time.Duration {
	var sum time.Duration
	for _, f := range faults {
		sum += allowances[f.kind]
	}
	return base + time.Duration(slack*float64(sum)) + detour*g.slowest(from-base, to+base)
}

// overlaps tells whether a fault may be felt between two moments: until outlast behind its
// end, or later on a machine that is slow.
func (g *controlGroup) overlaps(f fault, from, to, outlast time.Duration) bool {
	if f.end > 0 {
		outlast += detour * g.slowest(f.end, f.end+outlast)
	}
	return f.overlaps(from, to, outlast)
}
