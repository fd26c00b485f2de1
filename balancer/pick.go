package balancer

import (
	"errors"
	"net/http"
	"slices"
)

// ErrNoBackend says that no backend may take the request. It is worth another
// try a little later.
var ErrNoBackend = errors.New("balancer: no backend is up")

// Pick returns the backend that shall serve a request: home, the ID of the
// backend that the client is pinned to, if the pool has it and it still keeps
// this client (see [Backend.Keeps]). Else, for a client with a key, the backend
// that weighted rendezvous hashing of the key gives among those that are Up, so
// that every replica that sees the same set agrees, without talking, on one new
// home. Else what the picker says. Backends in tried are left out, and once there
// are any, the least loaded of the rest is picked instead of asking the picker.
//
// When none is left that is Up, the same is done among those that are only sick;
// when there is none of those either, the error is [ErrNoBackend].
//
// Pick counts nothing: see [Backend.Begin]. It takes no lock and with the
// pickers of this package allocates nothing.
func (p *Pool) Pick(r *http.Request, home, key string, tried ...*Backend) (*Backend, error) {
	if p.unchecked.Load() {
		p.warnUnchecked(10 * p.check.Interval)
	}
	s := p.now.Load()
	if b := s.byID[home]; b != nil && b.Keeps(key) && !slices.Contains(tried, b) {
		return b, nil
	}
	if b := p.choose(&s.up, r, key, tried); b != nil {
		return b, nil
	}
	if b := p.choose(&s.sick, r, key, tried); b != nil {
		return b, nil
	}
	if p.unchecked.Load() {
		p.warnUnchecked(p.check.Interval)
	}
	return nil, ErrNoBackend
}

// choose returns a new home among f, nil if there is none.
func (p *Pool) choose(f *candidates, r *http.Request, key string, tried []*Backend) *Backend {
	switch {
	case len(f.backends) == 0:
		return nil
	case key != "":
		return f.place(key, tried)
	case len(tried) > 0:
		return leastLoaded(f.backends, tried)
	}
	return p.picker.Pick(r, f.backends)
}
