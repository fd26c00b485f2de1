package balancer

import (
	"errors"
	"fmt"
)

// An Opinion is what the checks of another process have found about a backend.
type Opinion struct {
	Health Health
	Why    string // see [Status]
}

// Opinion returns what the checks have found. What it says of an ejection (see [Outliers])
// isn't part of it.
func (b *Backend) Opinion() Opinion {
	p := b.pool.Load()
	if p == nil {
		return Opinion{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return Opinion{Health: b.found, Why: b.foundWhy}
}

// SetOpinion has the pool take what the checks of another process have found about a backend
// for what its own have found, until they begin. So a process that takes the place of another
// one doesn't send clients to a backend that is known to be dead. It is an error if the pool
// has no backend with this ID, or once Run was called: its checks know better.
func (p *Pool) SetOpinion(id string, o Opinion) error {
	if o.Health < Well || o.Health > Dead {
		return fmt.Errorf("balancer: opinion about backend %s: no %v", id, o.Health)
	}
	return p.operate(id, func(b *Backend, c *Change) error {
		if p.hasRun.Load() || p.running {
			return errors.New("balancer: the pool has checks of its own already")
		}
		b.vitals = vitals{alive: streak{on: o.Health != Dead}, fine: streak{on: o.Health == Well}, wasWell: true}
		b.found, b.foundWhy, b.foundLate = o.Health, o.Why, false
		b.diagnose()
		c.Why = o.Why
		return nil
	})
}
