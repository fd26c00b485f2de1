package middleware

import (
	"net/http"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
)

// Stats tell how a gateway stands at one moment. See [Gateway.Stats].
type Stats struct {
	Name     string         // of this replica: Options.Name
	Since    time.Time      // when the gateway was made
	Requests int64          // at the backends now, without tunnels
	Tunnels  int64          // open now
	Backends []BackendStats // in the order of the pool
	Replicas []ReplicaStats // that were heard lately, by name; nil only without a Bus
	Findings []Finding      // mistakes in the set-up that were noticed, the latest first

	Rebalance *RebalanceStats // nil without Options.Rebalance
}

// BackendStats tell how one backend stands.
type BackendStats struct {
	Backend  *balancer.Backend
	Requests int64 // at it now, from all gateways of its pool
	Tunnels  int64 // to it now, of this gateway
}

// ReplicaStats tell how another gateway on the Bus stands.
type ReplicaStats struct {
	ID       string    // random, made when the replica began
	Name     string    // its Options.Name
	Heard    time.Time // when it was heard last
	Backends []ReplicaBackend
}

// A ReplicaBackend is a backend as another replica sees it.
type ReplicaBackend struct {
	ID       string `json:"id"`
	State    string `json:"state"` // up, draining or down
	Requests int64  `json:"requests,omitempty"`
	Tunnels  int64  `json:"tunnels,omitempty"`

	// With Options.Rebalance: the clients with a tunnel or a session that polls, those on
	// their way to it included, and how many of them may be moved.
	Clients int64 `json:"clients,omitempty"`
	Movable int64 `json:"movable,omitempty"`
}

// Stats returns how the gateway stands now. It looks at each tunnel, so it takes about a
// millisecond for 10,000 of them: call it some times a second at most.
func (g *Gateway) Stats() Stats {
	s := Stats{Name: g.name, Since: g.since, Findings: g.router.doctor.findings(), Rebalance: g.rebalancer.Stats()}
	tunnels := make(map[string]int64)
	for t := range g.upgrade.Tunnels() {
		tunnels[t.Group()]++
		s.Tunnels++
	}
	for b := range g.router.pool.All() {
		n := tunnels[b.ID()]
		at := BackendStats{Backend: b, Requests: max(0, b.InFlight()-n), Tunnels: n}
		s.Requests += at.Requests
		s.Backends = append(s.Backends, at)
	}
	if g.replicas != nil {
		s.Replicas = g.replicas.views.list()
	}
	return s
}

// FindPin returns the pin that the affinity finds for r, and the backend to which a
// request like r would go now, nil if no backend is up. It changes nothing, apart from
// the turn of a picker such as round robin for a client without a home.
func (g *Gateway) FindPin(r *http.Request) (affinity.Pin, *balancer.Backend) {
	pin, _ := g.router.affinity.Find(r)
	home := pin.Backend
	if to, moves := g.router.target(g.router.moves.of(pin.Key), pin); moves {
		home = to
	}
	b, _ := g.router.pool.Pick(r, home, pin.Key)
	return pin, b
}
