package balancer

import (
	"errors"
	"net/http"
	"slices"
)

// ErrNoBackend says that no backend may take the request now. A later try may succeed.
var ErrNoBackend = errors.New("balancer: no backend is up")

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
// The last two pass over backends that let requests wait (see [Pool.ReportSlow]) while
// there are others.
//
// When no backend is left that is Up, the last three apply to those that are only sick.
// When none of these is left either, the error is [ErrNoBackend].
//
// Pick doesn't count the request: see [Backend.Begin]. It takes no lock, and with the
// pickers of this package it allocates nothing. R may be nil if the picker allows that.
func (p *Pool) Pick(r *http.Request, home, key string, tried ...*Backend) (*Backend, error) {
	if p.unchecked.Load() {
		p.warnUnchecked(10 * p.check.Interval)
	}
	s := p.now.Load()
	if b := s.byID[home]; b != nil && b.Keeps(key) && !slices.Contains(tried, b) {
		return b, nil
	}
	for _, from := range [...]*candidates{&s.up, &s.sick} {
		if from.groups != nil {
			if g := p.groupFor(s, from.groups, home, key, tried); g != nil {
				from = &g.candidates
			}
		}
		if b := p.choose(from, r, home, key, tried); b != nil {
			return b, nil
		}
	}
	if p.unchecked.Load() {
		p.warnUnchecked(p.check.Interval)
	}
	return nil, ErrNoBackend
}

// choose returns a new home among the candidates, nil if there is none.
func (p *Pool) choose(from *candidates, r *http.Request, home, key string, tried []*Backend) *Backend {
	switch {
	case len(from.backends) == 0:
		return nil
	case key != "" && home == "" && p.hashBound > 0:
		return from.placeBounded(key, tried, p.hashBound)
	case key != "":
		return from.place(key, tried)
	case len(tried) > 0:
		if b := leastLoaded(from.quick, tried); b != nil {
			return b
		}
		return leastLoaded(from.backends, tried)
	}
	return p.picker.Pick(r, from.quick)
}
