package middleware

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/within"
)

// A request that strays is one of a new client, which any backend could serve. It isn't held
// hostage by a backend that is ill: if the one that was picked lets it wait for longer than
// it usually does (see [balancer.Pool.Patience]), the attempt is given up and another
// backend is tried.
//
// The attempts follow each other instead of going on side by side, so that at most one
// backend at a time works for a request, and only the handler's goroutine has to do with the
// client. The last attempt, by Retry.Attempts, has no limit, so that a request which takes
// long everywhere is answered. An attempt that was sent is given up only when the budget
// for retries allows it, and goes on until then.

// mayStray reports whether any backend could serve the request as well, and repeating it
// does no harm. Its client has no home, and no key that stands for one. It is no request of
// a session, which a backend may know all the same. Its method is safe: PUT and DELETE are
// idempotent too, but the answer to a second one may differ.
func (t *trip) mayStray() bool {
	if t.body != nil || t.pin.Key != "" || t.home() != "" {
		return false
	}
	switch t.in.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions:
		q := t.in.URL.RawQuery
		return !strings.HasPrefix(q, "sid=") && !strings.Contains(q, "&sid=")
	}
	return false
}

// limit sets how long the next attempt may take, at b, if sent ones were made before.
func (r *router) limit(t *trip, b *balancer.Backend, sent int) {
	t.patience, t.paid = balancer.Patience{}, false
	if sent >= r.retry.Attempts-1 {
		return
	}
	if t.strays {
		t.patience = r.pool.Patience(b, t.tunnel, t.tried...)
		if t.leave == nil {
			t.leave = t.pay
		}
		t.patience.Leave = t.leave
	}
	t.patience.Movable = r.movable(t)
}

// movable reports whether the request gets a useful answer when its backend is Down: it may
// be repeated elsewhere, or the affinity ends its session, as it would with the next request.
func (r *router) movable(t *trip) bool {
	if t.body != nil || !idempotent(t.in) || r.gone == GoneRefuse && t.home() != "" {
		return false
	}
	if !t.pin.Fixed {
		return true
	}
	_, answers := r.affinity.(affinity.GoneHandler)
	return answers
}

// pay takes what it costs to leave a backend from the budget for retries. It is the Leave of
// the trip's patience.
func (t *trip) pay() bool {
	t.paid = t.budget.spend()
	return t.paid
}

// timed makes an attempt at b for a request that strays. When b answers, it tells b how long
// that took, and the pool which backends have let the request wait for longer than that: it
// wasn't the request that is slow.
func (r *router) timed(t *trip, b *balancer.Backend) (*http.Response, error) {
	t.began = time.Now()
	res, err := t.try(b)
	if err != nil {
		return nil, err
	}
	took := time.Since(t.began)
	b.Took(took)
	for _, w := range t.waited {
		if took < w.within {
			r.pool.ReportSlow(w.at, w.since)
		}
	}
	return res, nil
}

// A wait is an attempt that was given up since no answer had begun within a time.
type wait struct {
	at     *balancer.Backend
	since  time.Time
	within time.Duration
}

// gaveUp takes note of an attempt at b that failed, and reports whether it was given up by
// the limit for its answer. One that was given up since the connection took too long is
// reported at once, since that can't be the request's fault.
func (r *router) gaveUp(t *trip, b *balancer.Backend, v verdict) bool {
	if v.slow && !v.sent && t.patience.Connect > 0 {
		r.pool.ReportSlow(b, t.began)
	}
	if !v.slow || !t.paid {
		return false
	}
	t.waited = append(t.waited, wait{b, t.began, t.patience.Begin})
	return true
}

// A haste is a trip's patience with a handshake, in the context of the attempt.
type haste struct {
	balancer.Patience
	budget *budget
	giveUp context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer // calls late; nil before the connection was made
	over  bool        // the attempt has ended
	paid  bool        // it was given up, and the budget charged for that
}

type hasteKey struct{}

// dial connects to the backend in ctx for a handshake, and from then on limits the time
// that this takes.
func (g *Gateway) dial(ctx context.Context, _ *http.Request) (net.Conn, error) {
	b := balancer.BackendFromContext(ctx)
	h, _ := ctx.Value(hasteKey{}).(*haste)
	if h == nil {
		return g.transport.Connect(ctx, b)
	}
	if h.Connect > 0 {
		limited, cancel := within.Deadline(ctx, time.Now().Add(h.Connect))
		defer cancel()
		ctx = limited
	}
	conn, err := g.transport.Connect(ctx, b)
	if err == nil && h.Begin > 0 {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.timer = time.AfterFunc(h.Begin, h.late)
	}
	return conn, err
}

// late gives the handshake up if the budget allows that, and otherwise looks again later.
func (h *haste) late() {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.over:
	case h.budget.spend():
		h.paid = true
		h.giveUp(context.DeadlineExceeded)
	default:
		h.timer.Reset(h.Begin)
	}
}

// stop ends the limit, and reports whether the handshake was given up by it. A nil haste has
// none.
func (h *haste) stop() (gaveUp bool) {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over = true; h.timer != nil {
		h.timer.Stop()
	}
	return h.paid
}
