package middleware

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
)

// A trip is what the router knows of one request: the client's request, its pin, its body,
// and the attempts that were made. Only the handler's goroutine uses it, or that which
// called Sticky.RoundTrip.
type trip struct {
	in   *http.Request // the client's request, which the affinity sees
	pin  affinity.Pin
	body *replay // nil for a request without a body
	rec  *Record // nil if nobody observes
	move *move   // by the operator, nil if there is none
	to   string  // with move: where the client goes, "" for anywhere

	// try sends the request to b. An answer of any status is a success. An error
	// means that there was no answer.
	try func(b *balancer.Backend) (*http.Response, error)

	// keep is Keep of affinity.Answer if the answer opens a tunnel. Nil if nobody wants that.
	keep func(pins affinity.Toucher, key, backend string)

	stays bool // at the home of a Fixed pin, although its turn in a drain has come

	led *arrival // in whose place this client is led to its first home, nil for nobody

	tunnel  bool              // the backend counts it as a tunnel
	backend *balancer.Backend // of the latest attempt; nil if the affinity has answered
	counted bool              // the backend counts this request until end

	tried   []*balancer.Backend
	first   [4]*balancer.Backend // the array of tried at first, to save an allocation
	refused bool                 // the home refused the connection
	lost    bool                 // health has found that the session at the home is gone
	resent  bool                 // the home refused the connection, was found well, and is tried again
	unknown bool                 // the affinity has noticed that the backend doesn't know the session
	until   time.Time            // with GoneWait: when it stops waiting for its home

	strays   bool              // see mayStray
	patience balancer.Patience // with this attempt
	began    time.Time         // of this attempt, for a request that strays
	budget   *budget
	leave    func() bool // pay
	paid     bool        // the attempt was given up, and the budget charged for that
	waited   []wait      // for answers, before this attempt
}

// home returns the ID of the client's home: where the operator has moved it, or else where
// its pin says.
func (t *trip) home() string {
	if t.move != nil {
		return t.to
	}
	return t.pin.Backend
}

// turn returns the key that says how long the home keeps the client in a drain. Without a
// key that is until the end of the drain.
func (t *trip) turn() string {
	if t.stays {
		return ""
	}
	return t.pin.Key
}

// end takes the request out of the backend's count. Only its first call does something.
func (t *trip) end() {
	switch {
	case !t.counted:
	case t.tunnel:
		t.backend.EndTunnel()
	default:
		t.backend.End()
	}
	t.counted = false
}

// request returns a copy of out for one attempt at b: with ctx, the scheme and host of b in its
// URL, and a body of its own.
func (t *trip) request(ctx context.Context, out *http.Request, b *balancer.Backend) (*http.Request, error) {
	r := out.WithContext(ctx)
	u := *out.URL
	u.Scheme, u.Host = b.URL().Scheme, cmp.Or(b.URL().Host, "localhost") // the name of a backend on a Unix socket
	r.URL = &u
	return r, t.reopen(r)
}

// reopen sets out's body to a new reader, for one attempt.
func (t *trip) reopen(out *http.Request) (err error) {
	if t.body != nil {
		out.Body, err = t.body.open()
		out.GetBody = t.body.open
	}
	return err
}
