package balancer

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
)

// ErrNoBackend says that no backend may take the request now. A later try may succeed.
var ErrNoBackend = errors.New("balancer: no backend is up")

// errEmpty is the ErrNoBackend of a pool without backends. That is no mistake of NewPool's
// caller if a source names them later, but whoever forgot them is told.
var errEmpty = fmt.Errorf("%w: the pool has none, since none was given to NewPool or ParsePool, or its source has named none yet", ErrNoBackend)

// Pick returns the backend that is to serve a request. It is the first of these that
// there is, without the backends in tried:
//
//   - The client's home: the backend with the ID home, to which the client is pinned, if
//     it still keeps the client (see [Backend.Keeps]).
//   - For a client with a key, the backend that weighted rendezvous hashing of the key
//     gives among those that are Up. Replicas that see the same set of backends agree on
//     it without communicating.
//   - The least loaded backend that is Up, if tried isn't empty.
//   - The backend that the [Picker] picks among those that are Up.
//
// With shares the last three choose within a group: see [Pool.SetShares].
// The last two pass over backends that are stalled (see [Pool.ReportSlow]) while there are
// others.
//
// When no backend is left that is Up, the last three apply to those that are only sick.
// Backends that are only sick because their checks get no answer in time count as Up here
// when more than half of both are late or stalled: the machines are busy then, and what is
// left couldn't serve all clients.
// When none of these is left either, the error is [ErrNoBackend].
//
// Pick doesn't count the request: see [Backend.Begin]. It knows nothing of a [Limit]: see
// [Pool.Acquire]. It takes no lock, and with the pickers of this package it allocates
// nothing. R may be nil if the picker allows that.
func (p *Pool) Pick(r *http.Request, home, key string, tried ...*Backend) (*Backend, error) {
	if b, _ := p.pick(r, home, key, skip{tried: tried}); b != nil {
		return b, nil
	}
	return nil, p.none()
}

// none returns the error for a request that no backend may take.
func (p *Pool) none() error {
	if p.unchecked.Load() {
		p.warnUnchecked(p.check.Interval)
	}
	if p.Len() == 0 {
		return errEmpty
	}
	return ErrNoBackend
}

// A skip is what a new client passes over.
type skip struct {
	tried  []*Backend
	full   bool // backends without room too, for a request or a tunnel
	tunnel bool
}

func (s skip) has(b *Backend) bool {
	return slices.Contains(s.tried, b) || s.full && b.room(s.tunnel).full()
}

// pick returns what Pick does, nil for none. If the client passes over full backends and all
// that may take it are full, it returns the one where the client should wait, and full is
// true. It doesn't look whether a home is full.
func (p *Pool) pick(r *http.Request, home, key string, without skip) (b *Backend, full bool) {
	if p.unchecked.Load() {
		p.warnUnchecked(10 * p.check.Interval)
	}
	s := p.now.Load()
	if b := s.byID[home]; b != nil && b.Keeps(key) && !slices.Contains(without.tried, b) {
		return b, false
	}
	for _, from := range [...]*candidates{&s.up, &s.sick} {
		if from.groups != nil {
			if g := p.groupFor(s, from.groups, home, key, without); g != nil {
				from = &g.candidates
			}
		}
		if b, full := p.choose(from, r, home, key, without); b != nil {
			return b, full
		}
	}
	return nil, false
}

// choose returns a new home among the candidates, nil if there is none.
func (p *Pool) choose(from *candidates, r *http.Request, home, key string, without skip) (b *Backend, full bool) {
	switch {
	case len(from.backends) == 0:
		return nil, false
	case key != "" && home == "" && p.hashBound > 0:
		b = from.placeBounded(key, without, p.hashBound)
	case key != "":
		b = from.place(key, without)
	case len(without.tried) > 0:
		b = from.leastLoaded(without)
	default:
		b = p.picker.Pick(r, from.quick)
		if b != nil && without.full && without.has(b) {
			b = from.leastLoaded(without)
			break
		}
		return b, false
	}
	if b != nil || !without.full {
		return b, false
	}
	without.full = false
	if key != "" {
		return from.place(key, without), true
	}
	return from.leastLoaded(without), true
}

// leastLoaded returns the least loaded backend, one that is picked last only if there is no
// other, and nil if none is left.
func (c *candidates) leastLoaded(without skip) *Backend {
	if b := leastLoaded(c.quick, without); b != nil {
		return b
	}
	return leastLoaded(c.backends, without)
}
