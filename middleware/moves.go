package middleware

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/closecode"
)

// MovePin moves a client to another backend, on this replica and on all that the Bus
// reaches: its tunnels are closed with 1012 (service restart), as by
// [upgrade.Tunnel.CloseGracefully], its sessions of Engine.IO are ended at their node, in a
// lull too, and answered as if that were gone, and its next request gets the new home, as one
// whose home is gone does. With an empty backend the client is placed anew, which may be where it
// was, and in any group (see [balancer.Pool.SetShares]). So it is while the new home isn't
// Up.
//
// key is the key of the client's pin, as for [Gateway.CloseSession]. A client that is only
// known by its session, as with [affinity.EngineIO] alone, has another key in its next
// session, and so it is only sent away. A move is remembered for an hour, within which the
// client has to come: it isn't moved a second time. With an affinity that remembers
// nothing, such as [affinity.Hash], the client returns to its old home after that hour.
//
// It is an error if the pool doesn't have the backend. As for CloseSession, an error may
// also say that other replicas were not told.
func (g *Gateway) MovePin(ctx context.Context, key, backend string) error {
	if key == "" {
		return errors.New("limpet: move pin: no key")
	}
	if backend != "" && g.router.pool.Get(backend) == nil {
		return fmt.Errorf("limpet: move pin: no backend %q in the pool", backend)
	}
	n := moveNote{Session: sessionHash(key), Backend: backend}
	g.movePin(n)
	return g.tellReplicas(ctx, "move pin", note{Move: &n})
}

// movePin carries out a move that was decided here or on another replica.
func (g *Gateway) movePin(n moveNote) {
	g.rememberMove(n, time.Now())
	g.sendAway(map[string]string{n.Session: n.Backend})
}

// rememberMove remembers a move of a client that has to leave its home at that time.
func (g *Gateway) rememberMove(n moveNote, turn time.Time) *move {
	m := &move{to: n.Backend, until: turn.Add(moveFor)}
	g.router.moves.add(n.Session, m)
	return m
}

// movePins carries out the moves of many clients that were decided on another replica.
func (g *Gateway) movePins(notes []moveNote) {
	to := make(map[string]string, len(notes))
	for _, n := range notes {
		m := g.rememberMove(n, time.Now())
		if g.rebalancer != nil {
			g.rebalancer.arrivals.expect(n.Backend, m, true)
		}
		to[n.Session] = n.Backend
	}
	g.sendAway(to)
}

// sendAway has the clients leave all backends but the one that each is moved to, by the hash
// of its key.
func (g *Gateway) sendAway(to map[string]string) {
	leaves := func(key, backend string) bool {
		if key == "" {
			return false
		}
		home, moves := to[sessionHash(key)]
		return moves && backend != home
	}
	for t := range g.upgrade.Tunnels() {
		if leaves(t.Key(), t.Group()) {
			t.CloseGracefully(closecode.ServiceRestart, "moved")
		}
	}
	g.scans.schedule(0, g.endLeaving)
}

const (
	moveFor  = time.Hour // how long a move is remembered
	movesMax = 50_000    // how many are remembered
)

// moves are the clients that an operator or rebalancing has moved, by the hash of their
// key. A nil *moves has none.
type moves struct {
	until atomic.Int64 // when the latest is forgotten, in Unix nanoseconds; 0: there never was one
	all   sync.Map     // of *move

	mu    sync.Mutex // held by add
	order []string   // the hashes, the oldest first
}

// A move says where a client goes that was found at another home.
type move struct {
	to    string // "": it is placed anew
	until time.Time
	from  atomic.Pointer[string] // where the client was first found; nil if it didn't come yet
	came  atomic.Bool            // the client was bound since then, and not to a session
	over  atomic.Bool            // the client has come to its new home, or was placed where it was
}

// turn returns when the client has to leave its home. A session stays there until then.
func (m *move) turn() time.Time { return m.until.Add(-moveFor) }

// last returns the turn of the latest move, a time long ago if there was none.
func (s *moves) last() time.Time {
	if s == nil {
		return time.Time{}
	}
	return time.Unix(0, s.until.Load()).Add(-moveFor)
}

// add remembers m. It forgets the oldest move if there are too many.
func (s *moves) add(hash string, m *move) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.all.Swap(hash, m); !known {
		s.order = append(s.order, hash)
	}
	s.until.Store(max(s.until.Load(), m.until.UnixNano()))
	for len(s.order) > 0 {
		oldest, _ := s.all.Load(s.order[0])
		if len(s.order) <= movesMax && time.Now().Before(oldest.(*move).until) {
			return
		}
		s.all.Delete(s.order[0])
		s.order = s.order[1:]
	}
}

// of returns the move of the client that has this key, or nil.
func (s *moves) of(key string) *move {
	if s == nil || key == "" {
		return nil
	}
	if until := s.until.Load(); until == 0 || time.Now().UnixNano() > until {
		return nil // most requests are spared the hash
	}
	v, ok := s.all.Load(sessionHash(key))
	if !ok || time.Now().After(v.(*move).until) {
		return nil
	}
	return v.(*move)
}

// applies reports whether a client moves that was found at this home. It doesn't if it has
// moved already, and perhaps on from there.
func (m *move) applies(home string) bool {
	from := m.from.Load()
	return !m.over.Load() && (home != m.to || home == "") && (from == nil || *from == home)
}

// found notes where a request of the client was found. A session says nothing of where the
// next one will be.
func (m *move) found(pin affinity.Pin) {
	switch home := pin.Backend; {
	case home == "" || home != m.to:
		m.from.CompareAndSwap(nil, &home)
	case !pin.Fixed:
		m.over.Store(true)
	}
}

// bound notes where a request of the client was bound that was found at another home, or
// the same one. It would be placed anew for ever if that was no end of the move, and its
// sessions would be ended again and again.
func (m *move) bound(found affinity.Pin, home string) {
	if found.Fixed {
		return
	}
	m.came.Store(true)
	if found.Backend == home {
		m.over.Store(true)
	}
}

// target returns where a client with this pin goes by m, "" for anywhere. Only a backend
// that is Up takes clients that are moved. moves is false if the client stays at its home.
func (r *router) target(m *move, pin affinity.Pin) (to string, moves bool) {
	if m == nil || !m.applies(pin.Backend) || pin.Fixed && time.Now().Before(m.turn()) {
		return "", false
	}
	if b := r.pool.Get(m.to); b != nil && b.State() == balancer.Up {
		to = m.to
	}
	return to, true
}

// A movedClient is a move as a successor gets it.
type movedClient struct {
	Session    string // the hash of the client's key
	To         string
	Until      time.Time
	Found      bool // From is set
	From       string
	Came, Over bool
}

// list returns the moves that aren't forgotten, the oldest first.
func (s *moves) list() (all []movedClient) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, hash := range s.order {
		v, _ := s.all.Load(hash)
		m := v.(*move)
		if now.After(m.until) {
			continue
		}
		c := movedClient{Session: hash, To: m.to, Until: m.until, Came: m.came.Load(), Over: m.over.Load()}
		if from := m.from.Load(); from != nil {
			c.Found, c.From = true, *from
		}
		all = append(all, c)
	}
	return all
}

// inherit remembers moves of another process, unless the same client was moved here.
func (s *moves) inherit(all []movedClient) {
	for _, c := range all {
		if _, known := s.all.Load(c.Session); known {
			continue
		}
		m := &move{to: c.To, until: c.Until}
		if from := c.From; c.Found {
			m.from.Store(&from)
		}
		m.came.Store(c.Came)
		m.over.Store(c.Over)
		s.add(c.Session, m)
	}
}
