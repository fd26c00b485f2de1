package middleware

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"iter"
	"maps"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/closecode"
)

// A takeoverState is what a gateway knows beside its tunnels and pins.
type takeoverState struct {
	Wishes   map[string]balancer.Wish
	Opinions map[string]balancer.Opinion
	Shares   map[string]int
}

// state returns what a successor has to know.
func (g *Gateway) state() ([]byte, error) {
	s := takeoverState{
		Wishes: make(map[string]balancer.Wish), Opinions: make(map[string]balancer.Opinion), Shares: g.router.pool.Shares(),
	}
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
// the pool waits until they are.
func (g *Gateway) restore(s takeoverState) {
	pool := g.router.pool
	for id, o := range s.Opinions {
		if pool.Get(id) != nil {
			_ = pool.SetOpinion(id, o) // the pool's own checks, if there are any, know better
		}
	}
	for id, w := range s.Wishes {
		if pool.Get(id) == nil {
			continue
		}
		delete(s.Wishes, id)
		g.restoreWish(id, w)
	}
	if len(s.Shares) > 0 && !maps.Equal(s.Shares, pool.Shares()) {
		if err := pool.SetShares(s.Shares); err != nil {
			g.router.log.Warn("takeover: the shares of the predecessor don't fit here", "err", err)
		}
	}
	if len(s.Wishes) == 0 {
		return
	}
	wishes := s.Wishes // guarded by the pool, which calls its listeners one at a time
	stop := pool.OnChange(func(c balancer.Change) {
		id := c.Backend.ID()
		w, ok := wishes[id]
		if !ok || c.Removed {
			return
		}
		delete(wishes, id)
		if c.Backend.Wish() == (balancer.Wish{}) { // else somebody has decided since
			g.restoreWish(id, w)
		}
	})
	unwatch := g.unwatch
	g.unwatch = func() {
		unwatch()
		stop()
	}
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
