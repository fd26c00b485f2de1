package middleware

import (
	"net/http"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/upgrade"
)

// Trace has hooks for what happens to a request. Any of them may be nil. They
// run on the request's path, concurrently for different requests: they must be
// quick. r is the client's request and must not be changed.
type Trace struct {
	// Found is called with what the affinity found, once a request. Its Status
	// tells a hit from a new client, an expired pin and a forged one.
	Found func(r *http.Request, pin affinity.Pin)
	// Picked is called before each attempt.
	Picked func(r *http.Request, b *balancer.Backend)
	// Failed is called when an attempt failed, unless the client went away;
	// again tells whether the request is now sent once more.
	Failed func(r *http.Request, b *balancer.Backend, err error, again bool)
	// Bound is called when an answer gives the client a new home: from is its
	// home until now, "" for a client that had none. To an affinity without a
	// memory, a Hash, each request's client is one that had none.
	Bound func(r *http.Request, from, to string)
	// UnknownSession is called when a backend answered that it doesn't know the
	// request's session, as affinity.EngineIO notices; pin is what that had
	// found. A Hit means that the session has ended there, as some do. Count
	// the others, of which a warning tells too: those requests didn't get to the
	// backend that has their session. Many are the sign of replicas with
	// different keys or without a common store.
	UnknownSession func(r *http.Request, pin affinity.Pin, b *balancer.Backend)
	// Opened is called when a tunnel is about to be handed to its engine. Send
	// waits for that, so it has to be called by another goroutine here.
	Opened func(r *http.Request, b *balancer.Backend, t *upgrade.Tunnel)
	// Closed is called once for each Opened, when both ends of the tunnel are
	// closed, mostly long after its request's handler returned.
	Closed func(b *balancer.Backend, s upgrade.Summary)
}

// filled returns t with hooks that do nothing where it has none, but for Closed,
// which every tunnel would keep; t may be nil.
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
