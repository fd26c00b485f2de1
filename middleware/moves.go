package middleware

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
)

// MovePin moves a client to another backend, on this replica and on all that the Bus
// reaches: its tunnels are closed with 1012 (service restart), its sessions of Engine.IO
// are answered as if their node were gone, and its next request gets the new home, as
// one whose home is gone does. With an empty backend the client is placed anew, which may
// be where it was. Backends that aren't Up can't take it.
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
	g.router.moves.add(n.Session, &move{to: n.Backend, until: time.Now().Add(moveFor)})
	for t := range g.upgrade.Tunnels() {
		if key := t.Key(); key != "" && t.Group() != n.Backend && sessionHash(key) == n.Session {
			t.Close(closecode.ServiceRestart, "moved")
		}
	}
}

const (
	moveFor  = time.Hour // how long a move is remembered
	movesMax = 10_000    // how many are remembered
)

// moves are the clients that an operator has moved, by the hash of their key. A nil *moves
// has none.
type moves struct {
	n   atomic.Int64
	all sync.Map // of *move

	mu    sync.Mutex // held by add
	order []string   // the hashes, the oldest first
}

// A move says where a client goes that was found at another home.
type move struct {
	to    string // "": it is placed anew
	until time.Time
	from  atomic.Pointer[string] // where the client was first found; nil if it didn't come yet
}

// add remembers m. It forgets the oldest move if there are too many.
func (s *moves) add(hash string, m *move) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.all.Swap(hash, m); !known {
		s.order = append(s.order, hash)
		s.n.Add(1)
	}
	for len(s.order) > 0 {
		oldest, _ := s.all.Load(s.order[0])
		if len(s.order) <= movesMax && time.Now().Before(oldest.(*move).until) {
			return
		}
		s.all.Delete(s.order[0])
		s.order = s.order[1:]
		s.n.Add(-1)
	}
}

// of returns the move of the client that has this key and was found at this home, or nil
// if it stays there.
func (s *moves) of(key, home string) *move {
	if s == nil || s.n.Load() == 0 || key == "" {
		return nil
	}
	v, ok := s.all.Load(sessionHash(key))
	if !ok {
		return nil
	}
	m := v.(*move)
	first := home // home itself would be allocated for each request, also while there are no moves
	m.from.CompareAndSwap(nil, &first)
	switch {
	case time.Now().After(m.until):
	case *m.from.Load() != home: // it has moved already, perhaps on from there
	case home != "" && home == m.to: // it was there already
	default:
		return m
	}
	return nil
}
