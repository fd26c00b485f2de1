package middleware

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/rebalance"
)

// A rebalancer moves long-lived clients to the backends that have less than their share of
// them: see Options.Rebalance. A run begins when a backend has come Up, was added or has
// another weight. It is one timer, which is set again after each step:
//
//	state     what a step does                    until
//	waiting   nothing                             no backend is in a drain, nothing has changed
//	                                              for a while, and all replicas were heard
//	moving    moves this replica's part           there is nothing to move
//	in        nothing, since clients that were    that has been so for balancedFor: the run ends
//	balance   moved may not be back yet
//
// A run ends after runMost times Rebalance, too, not counting the time in which it waited:
// clients that come and go would give it something to do for ever. It goes on for twice
// balancedFor at least: who was moved, and came back as a new client at another replica or
// not at all, is expected in vain until arrivalFor has passed, and only then is missed.
type rebalancer struct {
	gateway  *Gateway
	within   time.Duration // Options.Rebalance
	every    time.Duration // between two steps
	tunnels  sync.Map      // of *mover by *upgrade.Tunnel: those that may be moved
	arrivals arrivals
	runs     atomic.Bool

	mu       sync.Mutex // guards all below
	timer    *time.Timer
	stops    bool // no run begins any more
	changed  time.Time
	last     time.Time     // of the step before
	worked   time.Duration // how long this run has not waited
	balanced time.Time     // since when there is nothing to move, zero if there is
	begun    time.Time     // when this run has moved a client first, zero if it has not
	steps    rebalance.Steps
	salt     uint64 // of the choice among clients, another in each run
	ran      int    // how many clients this run has moved
	stats    RebalanceStats
}

// RebalanceStats tell what a gateway with Options.Rebalance does.
type RebalanceStats struct {
	Running bool   `json:"running"`
	Waits   string `json:"waits,omitempty"` // for what, if it does, such as "a drain of backend a"
	Moved   int64  `json:"moved"`           // clients that this gateway has moved
	Left    int    `json:"left"`            // clients that all gateways have yet to move, as far as that is known
}

const (
	stepEvery    = time.Second // at most; a shorter Rebalance has shorter steps
	stepEveryMin = 20 * time.Millisecond
	settleMost   = 10 * time.Second // after the last change; a shorter Rebalance waits for less
	balancedFor  = arrivalFor + 2*time.Second
	runMost      = 3
)

// newRebalancer returns nil if within is 0. It is an error if no client could ever be moved.
func newRebalancer(g *Gateway, within time.Duration) (*rebalancer, error) {
	switch {
	case within == 0:
		return nil, nil
	case within < 0:
		return nil, fmt.Errorf("limpet: Rebalance %v is negative; 0 moves nobody", within)
	case within < time.Millisecond:
		return nil, fmt.Errorf("limpet: Rebalance is %v: a number without a unit counts nanoseconds; want 2*time.Minute, say", within)
	case !mayMove(g.router.affinity):
		return nil, errors.New("limpet: Rebalance would move nobody: the affinity has neither an EngineIO nor a Cookie, and other homes are never left; leave Rebalance out")
	}
	return &rebalancer{gateway: g, within: within, every: max(stepEveryMin, min(stepEvery, within/20))}, nil
}

// mayMove reports whether a has a member that is a Mover.
func mayMove(a affinity.Affinity) bool {
	if c, ok := a.(affinity.Chain); ok {
		for _, member := range c {
			if mayMove(member) {
				return true
			}
		}
		return false
	}
	_, ok := a.(affinity.Mover)
	return ok
}

// poolChanged begins a run if the change may give a backend more clients.
func (r *rebalancer) poolChanged(c balancer.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wished := c.From == c.To && !c.Was.Equal(c.Backend.Wanted())
	if c.To != balancer.Up && c.Backend.Wanted().State == balancer.Up && !c.Removed {
		return // health has found it ill, which nobody waits for
	}
	if c.From != c.To || wished || c.Removed {
		r.changed = time.Now()
	}
	if c.To != balancer.Up || c.From == c.To && !wished || r.stops {
		return
	}
	if r.worked = 0; r.stats.Running {
		return
	}
	r.stats.Running, r.last, r.salt = true, time.Now(), rand.Uint64()
	r.balanced, r.begun, r.ran = time.Time{}, time.Time{}, 0
	r.steps = rebalance.Steps{}
	r.runs.Store(true)
	r.timer = time.AfterFunc(r.every, r.step)
}

// stop ends the run, and none begins any more.
func (r *rebalancer) stop() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stops = true
	if r.timer != nil {
		r.timer.Stop()
	}
	r.end()
}

// end ends the run. The mutex is held.
func (r *rebalancer) end() {
	if r.stats.Running && !r.begun.IsZero() {
		r.gateway.router.log.Info("rebalancing has ended", "moved", r.ran, "left", r.stats.Left, "took", time.Since(r.begun).Round(time.Millisecond))
	}
	r.stats.Running, r.stats.Waits, r.stats.Left = false, "", 0
	r.runs.Store(false)
}

// step moves the clients whose turn it is, and sets the timer again.
func (r *rebalancer) step() {
	r.mu.Lock()
	if !r.stats.Running {
		r.mu.Unlock()
		return
	}
	now := time.Now()
	passed := min(now.Sub(r.last), 2*r.every)
	r.last = now
	var leave []*leaving
	if r.stats.Waits = r.waits(now); r.stats.Waits == "" {
		r.worked += passed
		leave = r.next(passed)
		if r.stats.Left > 0 {
			r.balanced = time.Time{}
		} else if r.balanced.IsZero() {
			r.balanced = now
		}
	}
	if !r.balanced.IsZero() && now.Sub(r.balanced) > balancedFor || r.worked > max(runMost*r.within, 2*balancedFor) {
		r.end()
	} else {
		r.timer.Reset(r.every)
	}
	r.mu.Unlock()
	r.gateway.moveAll(leave, r.every)
}

// waits says what the run waits for, "" for nothing. The mutex is held.
func (r *rebalancer) waits(now time.Time) string {
	for b := range r.gateway.router.pool.All() {
		if w := b.Wanted(); w.State == balancer.Draining && w.Within > 0 && now.Before(w.Since.Add(w.Within)) {
			return "a drain of backend " + b.ID()
		}
	}
	if now.Sub(r.changed) < min(r.within/12, settleMost) {
		return "further changes"
	}
	replicas := r.gateway.replicas
	switch {
	case replicas == nil:
		return ""
	case !replicas.running.Load():
		return "Gateway.Run"
	}
	for _, other := range replicas.views.list() {
		if now.Sub(other.Heard) > viewEvery+time.Second {
			return "replica " + other.Name
		}
	}
	return ""
}

// next returns the clients that are to be moved in a step for which so much time has passed.
// The mutex is held.
func (r *rebalancer) next(passed time.Duration) []*leaving {
	g := r.gateway
	own := r.census(true)
	others := make(map[string]ReplicaBackend) // the sums
	r.steps.Place, r.steps.Replicas = 0, 1
	if g.replicas != nil {
		for _, replica := range g.replicas.views.list() {
			r.steps.Replicas++
			if strings.Compare(replica.ID, g.replicas.id) < 0 {
				r.steps.Place++
			}
			for _, b := range replica.Backends {
				sum := others[b.ID]
				sum.Clients += b.Clients
				sum.Movable += b.Movable
				others[b.ID] = sum
			}
		}
	}
	var loads []rebalance.Load
	for b := range g.router.pool.All() {
		if b.State() != balancer.Up {
			continue
		}
		mine, theirs := own[b.ID()], others[b.ID()]
		l := rebalance.Load{ID: b.ID(), Group: b.Group(), Weight: b.Weight(), Clients: float64(theirs.Clients), Movable: float64(theirs.Movable)}
		if mine != nil {
			l.Own = float64(len(mine.movable))
			l.Clients += float64(mine.clients)
			l.Movable += l.Own
		}
		loads = append(loads, l)
	}
	moves, left := r.steps.Next(loads, passed.Seconds()/r.within.Seconds())
	r.stats.Left = int(left + 0.5)
	if len(moves) == 0 {
		return nil
	}
	leave := r.choose(own, moves)
	if r.begun.IsZero() && len(leave) > 0 {
		r.begun = time.Now()
		g.router.log.Info("rebalancing begins: clients are moved to backends that have less than their share", "left", r.stats.Left)
	}
	r.ran += len(leave)
	r.stats.Moved += int64(len(leave))
	return leave
}

// Stats returns what the rebalancer does, nil if there is none.
func (r *rebalancer) Stats() *RebalanceStats {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	return &s
}

// view adds to what a replica publishes how many clients its backends have, of those that
// rebalancing concerns.
func (r *rebalancer) view(backends []ReplicaBackend) {
	own := r.census(false)
	for i := range backends {
		if mine := own[backends[i].ID]; mine != nil {
			backends[i].Clients, backends[i].Movable = mine.clients, mine.mayMove
		}
	}
}

// moveAll remembers the moves of clients, tells the other replicas, and has the clients leave
// one after another within that time.
func (g *Gateway) moveAll(leave []*leaving, within time.Duration) {
	var notes []moveNote
	now := time.Now()
	for i, l := range leave {
		l.after = within * time.Duration(i) / time.Duration(len(leave))
		switch {
		case l.key == "":
		case i > 0 && leave[i-1].key == l.key: // another tunnel of the same client
			l.move = leave[i-1].move
		default:
			n := moveNote{Session: sessionHash(l.key), Backend: l.to}
			l.move = g.rememberMove(n, now.Add(l.after))
			notes = append(notes, n)
		}
		g.rebalancer.arrivals.expect(l.to, l.move, false)
	}
	for _, l := range leave {
		time.AfterFunc(l.after, func() { g.leave(l) })
	}
	if g.replicas == nil || len(notes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for len(notes) > 0 {
		n := min(len(notes), notesMost)
		if err := g.replicas.publish(ctx, g.replicas.topic, note{From: g.replicas.id, Moves: notes[:n]}); err != nil {
			g.router.warn(ctx, "replicas could not be told of moves", "err", err)
		}
		notes = notes[n:]
	}
}
