package middleware

import (
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// releasePause is the time between two releases.
const releasePause = time.Second

// release sends requests elsewhere that wait for a backend which is Down, if the half rule
// keeps it from being lost and another backend is Up. The budget for retries limits them: it
// may be the checks that fail, and the backend may be about to answer, while the others can't
// serve for all. As long as there is such a backend, release has itself called again: for
// requests that the budget didn't allow for, for those that were just being sent when the
// backend went Down, and because no other one may have been Up.
func (g *Gateway) release() {
	up := false
	var held []*balancer.Backend
	for b := range g.router.pool.All() {
		switch b.State() {
		case balancer.Up:
			up = true
		case balancer.Down:
			select {
			case <-b.Lost():
			default:
				held = append(held, b)
			}
		}
	}
	if len(held) == 0 {
		return
	}
	for _, b := range held {
		if up {
			g.transport.Release(b, g.router.budget.spend)
		}
	}
	g.releases.schedule(releasePause, g.release)
}
