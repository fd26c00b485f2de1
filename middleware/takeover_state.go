package middleware

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"iter"
	"maps"
	"sync"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/closecode"
)

// A takeoverState is what a gateway knows beside the records of its tunnels and its pins. All but
// Notes is in the first offer only.
type takeoverState struct {
	Notes    []tunnelNote // of the tunnels that are offered, in their order; none from older builds
	Wishes   map[string]balancer.Wish
	Opinions map[string]balancer.Opinion
	Shares   map[string]int
	Moves    []movedClient
}

// state returns what a successor has to know that is offered tunnels with these notes.
func (g *Gateway) state(notes []tunnelNote, first bool) ([]byte, error) {
	s := takeoverState{Notes: notes}
	if !first {
		return encode(s)
	}
	s.Wishes, s.Opinions = make(map[string]balancer.Wish), make(map[string]balancer.Opinion)
	s.Shares, s.Moves = g.router.pool.Shares(), g.router.moves.list()
	for b := range g.router.pool.All() {
		if w := b.Wish(); w != (balancer.Wish{}) {
			s.Wishes[b.ID()] = w
		}
		if g.router.pool.HasRun() {
			s.Opinions[b.ID()] = b.Opinion()
		}
	}
	return encode(s)
}

// restore has the gateway know what its predecessor knew. What concerns backends that aren't in
// the pool waits until they are, or until stop is called.
func (g *Gateway) restore(s *takeoverState) (stop func()) {
	pool := g.router.pool
	g.router.moves.inherit(s.Moves)
	for id, o := range s.Opinions {
		if pool.Get(id) != nil {
			_ = pool.SetOpinion(id, o) // the pool's own checks, if there are any, know better
		}
	}
	stop = g.restoreWishes(s.Wishes)
	if len(s.Shares) > 0 && !maps.Equal(s.Shares, pool.Shares()) {
		if err := pool.SetShares(s.Shares); err != nil {
			g.router.log.Warn("takeover: the shares of the predecessor don't fit here", "err", err)
		}
	}
	return stop
}

// restoreWishes carries out wishes, those about backends that aren't in the pool once they are, or
// never if stop is called before. Backends may be added meanwhile: the pool's changes are followed
// before its backends are looked through, so that none is missed.
func (g *Gateway) restoreWishes(wishes map[string]balancer.Wish) (stop func()) {
	pool := g.router.pool
	var mu sync.Mutex // guards left
	left := maps.Clone(wishes)
	take := func(id string) (w balancer.Wish, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		w, ok = left[id]
		delete(left, id)
		return w, ok
	}
	stop = pool.OnChange(func(c balancer.Change) {
		if c.Removed {
			return
		}
		id := c.Backend.ID()
		if w, ok := take(id); ok && c.Backend.Wish() == (balancer.Wish{}) { // else somebody has decided since
			g.restoreWish(id, w)
		}
	})
	for id := range wishes {
		if pool.Get(id) == nil {
			continue
		}
		if w, ok := take(id); ok {
			g.restoreWish(id, w)
		}
	}
	return stop
}

// restoreWish has the pool carry out a wish, and tunnels keep their moments within a drain.
func (g *Gateway) restoreWish(id string, w balancer.Wish) {
	if err := g.router.pool.SetWish(id, w); err != nil {
		g.router.log.Warn("takeover: a wish of the predecessor doesn't fit here", "backend", id, "err", err)
		return
	}
	if w.State == balancer.Draining && w.Within > 0 && time.Since(w.Since) < w.Within {
		g.upgrade.DrainGroupSince(id, closecode.ServiceRestart, "backend is drained", w.Since, w.Within)
	}
}

// pinsInPart is how many pins travel in one message.
const pinsInPart = 500

// pinParts iterates over the pins in the memory of this process that were used at since or
// later, in messages.
func (g *Gateway) pinParts(since time.Time) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		var part []affinity.StoredPin
		for pin := range affinity.StoredPins(g.router.affinity, since) {
			if part = append(part, pin); len(part) < pinsInPart {
				continue
			}
			if !yield(encode(part)) {
				return
			}
			part = part[:0]
		}
		if len(part) > 0 {
			yield(encode(part))
		}
	}
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(v)
	return b.Bytes(), err
}

func decode(b []byte, v any) error {
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(v); err != nil {
		return fmt.Errorf("what came can't be read: %w", err)
	}
	return nil
}
