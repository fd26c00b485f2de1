package middleware

import (
	"net/http"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/upgrade"
)

// Trace has hooks for what happens to a request. Each may be nil. They are called on the
// goroutine that serves the request, concurrently for different requests, and must return
// quickly. r is the client's request and must not be changed.
type Trace struct {
	// Found is called once for each request, with the pin that the affinity found.
	// Its Status tells a hit from a new client, an expired pin and a forged one.
	Found func(r *http.Request, pin affinity.Pin)
	// Picked is called before each attempt.
	Picked func(r *http.Request, b *balancer.Backend)
	// Failed is called when an attempt has failed, unless the client went away.
	// again reports whether the request will be sent again.
	Failed func(r *http.Request, b *balancer.Backend, err error, again bool)
	// Bound is called when an answer binds the client to a new home. from is the home
	// that it had, "" for none. With an affinity that remembers nothing, such as
	// [affinity.Hash], no client has a home before.
	Bound func(r *http.Request, from, to string)
	// UnknownSession is called when a backend answered that it doesn't know the
	// request's session. [affinity.EngineIO] notices such answers; pin is the one that
	// it had found. If its Status is Hit, the session has ended at its backend, which
	// is usual. Otherwise the request was sent to a backend that never had the session.
	// Count those; a warning is logged for them too. Many of them mean that the
	// replicas have different keys, or no common store.
	UnknownSession func(r *http.Request, pin affinity.Pin, b *balancer.Backend)
	// Opened is called right before a tunnel begins to carry messages. t.Send waits
	// until it does, so that Opened must not call Send itself, but on another goroutine.
	Opened func(r *http.Request, b *balancer.Backend, t *upgrade.Tunnel)
	// Closed is called once for each Opened, when both connections of the tunnel are
	// closed. The request's handler has mostly returned long before.
	Closed func(b *balancer.Backend, s upgrade.Summary)
}

// filled returns t with hooks that do nothing in place of those that are nil, except for
// Closed: every tunnel would hold one. t may be nil.
func (t *Trace) filled() Trace {
	var f Trace
	if t != nil {
		f = *t
	}
	if f.Found == nil {
		f.Found = func(*http.Request, affinity.Pin) {}
	}
	if f.Picked == nil {
		f.Picked = func(*http.Request, *balancer.Backend) {}
	}
	if f.Failed == nil {
		f.Failed = func(*http.Request, *balancer.Backend, error, bool) {}
	}
	if f.Bound == nil {
		f.Bound = func(*http.Request, string, string) {}
	}
	if f.UnknownSession == nil {
		f.UnknownSession = func(*http.Request, affinity.Pin, *balancer.Backend) {}
	}
	if f.Opened == nil {
		f.Opened = func(*http.Request, *balancer.Backend, *upgrade.Tunnel) {}
	}
	return f
}
