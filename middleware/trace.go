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
	// Failed is called when an attempt failed; again tells whether the request
	// is now sent to another backend.
	Failed func(r *http.Request, b *balancer.Backend, err error, again bool)
	// Bound is called when an answer gives the client a new home: from is its
	// home until now, "" for a client that had none.
	Bound func(r *http.Request, from, to string)
	// Opened is called when a tunnel has been handed to its engine.
	Opened func(r *http.Request, b *balancer.Backend, t *upgrade.Tunnel)
	// Closed is called when both ends of a tunnel are closed, long after its
	// request's handler returned.
	Closed func(b *balancer.Backend, s upgrade.Summary)
}

func (t *Trace) found(r *http.Request, pin affinity.Pin) {
	if t != nil && t.Found != nil {
		t.Found(r, pin)
	}
}

func (t *Trace) picked(r *http.Request, b *balancer.Backend) {
	if t != nil && t.Picked != nil {
		t.Picked(r, b)
	}
}

func (t *Trace) failed(r *http.Request, b *balancer.Backend, err error, again bool) {
	if t != nil && t.Failed != nil {
		t.Failed(r, b, err, again)
	}
}

func (t *Trace) bound(r *http.Request, from, to string) {
	if t != nil && t.Bound != nil {
		t.Bound(r, from, to)
	}
}

func (t *Trace) opened(r *http.Request, b *balancer.Backend, tunnel *upgrade.Tunnel) {
	if t != nil && t.Opened != nil {
		t.Opened(r, b, tunnel)
	}
}

func (t *Trace) closed(b *balancer.Backend, s upgrade.Summary) {
	if t != nil && t.Closed != nil {
		t.Closed(b, s)
	}
}
