package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/pause"
)

// A router finds the backend for a request, retries on others, and binds the client to
// its home on the answer. Gateway and Sticky share it.
type router struct {
	pool      *balancer.Pool
	affinity  affinity.Affinity
	gone      Gone
	wait      time.Duration
	retry     Retry
	maxBody   int64
	budget    *budget
	observers *observers
	moves     *moves    // nil for a Sticky
	arrivals  *arrivals // nil without Options.Rebalance
	log       *slog.Logger
	header    string // PinHeader, "" for none
	doctor    *doctor

	rareWarning // of what makes one request fail, and others with it
}

// find returns the pin that the affinity finds for the request. An error of the affinity,
// such as that of a store which can't be reached, doesn't fail the request: it goes on
// with what the affinity has returned.
func (r *router) find(in *http.Request) affinity.Pin {
	pin, err := r.affinity.Find(in)
	if err != nil {
		r.warn(in.Context(), "affinity lookup failed", "err", err)
	}
	r.doctor.looked(in, pin)
	return pin
}

// rewrite lets the affinity remove its mark, such as a cookie, from the outgoing request.
func (r *router) rewrite(out *http.Request, pin affinity.Pin) {
	if rw, ok := r.affinity.(affinity.Rewriter); ok {
		rw.Rewrite(out, pin)
	}
}

// send picks backends and tries them until one answers, and binds the client to its home
// on that answer. t.backend is then the backend that answered, or nil if the answer is the
// affinity's own. The caller must call t.end, or the backend's End, when the answer was
// copied.
//
// Each round of the loop ends in one of these ways:
//
//	the home is gone and the affinity answers itself   that answer
//	an attempt is answered                             that answer
//	the attempt of a session failed, and health finds
//	its node gone                                      the affinity's answer
//	the client went away, or no backend is left        an error
//	the attempt failed and must not be repeated        its error
//	it failed and may be repeated                      the next round: at the home again with
//	                                                   GoneWait, or if that refused the connection
//	                                                   and is well now; else at another backend
//	the home was lost since the round began, as while
//	the client waited for room there                   the next round
func (r *router) send(t *trip) (*http.Response, error) {
	if r.maxBody > 0 && t.body != nil && t.in.ContentLength > r.maxBody {
		return nil, &http.MaxBytesError{Limit: r.maxBody}
	}
	r.budget.earn()
	t.tried, t.budget = t.first[:0], r.budget
	r.direct(t)
	t.strays = t.mayStray()
	ctx := t.in.Context()
	var failure error
	for sent := 0; ; {
		if res := r.goneAnswer(t); res != nil {
			return res, nil
		}
		b, err := r.choose(t, failure)
		if err != nil {
			return nil, err
		}
		if b == nil {
			continue
		}
		t.rec.picked()
		r.limit(t, b, sent)
		res, err := r.attempt(t, b)
		if err == nil {
			t.rec.tried(b, nil, false)
			t.rec.answered(SourceBackend, res.StatusCode, res.Header)
			return res, nil
		}
		failure = err
		v := judge(err)
		well := false
		if ctx.Err() == nil && !v.fault {
			judged := true // or will be, by health
			if !r.gaveUp(t, b, v) && !v.lost {
				judged = r.pool.Report(b, err)
			}
			if judged && t.pin.Fixed && b.ID() == t.pin.Backend {
				t.lost, well = r.losing(ctx, b, t.pin.Key)
			}
		}
		if ctx.Err() != nil {
			t.rec.tried(b, err, false)
			cause := context.Cause(ctx)
			if !errors.Is(cause, ctx.Err()) {
				cause = fmt.Errorf("%w: %w", ctx.Err(), cause)
			}
			return nil, fmt.Errorf("backend %s: %w", b.ID(), cause)
		}
		if t.lost {
			if res := r.goneAnswer(t); res != nil {
				t.rec.tried(b, err, false)
				return res, nil
			}
		}
		if v.refused && b.ID() == t.home() {
			t.refused = true
		}
		if v.sent || v.slow {
			sent++
		}
		again := !v.fault && sent < r.retry.Attempts && t.body.again() && (!v.sent || r.mayRepeat(t, v))
		t.rec.tried(b, err, again)
		if !again {
			var body *bodyError
			if errors.As(err, &body) {
				err = body // the backend, whose name is around it, has nothing to do with it
			}
			return nil, err
		}
		r.log.DebugContext(ctx, "attempt failed", "backend", b.ID(), "err", err)
		if v.refused && r.awaits(t, b) {
			if !pause.For(ctx, waitStep) {
				return nil, ctx.Err()
			}
			continue
		}
		if well && !v.sent && !t.resent {
			// The node is back, and says itself whether it knows the session.
			t.resent = true
			continue
		}
		t.tried = append(t.tried, b)
	}
}

// direct finds out whether the operator has moved the client.
func (r *router) direct(t *trip) {
	m := r.moves.of(t.pin.Key)
	if m == nil {
		return
	}
	m.found(t.pin)
	if to, moves := r.target(m, t.pin); moves && !t.stays {
		t.move, t.to = m, to
	}
}

// attempt tries the backend that choose has returned. The backend counts the request until
// t.end, which attempt calls itself if there is no answer.
func (r *router) attempt(t *trip, b *balancer.Backend) (res *http.Response, err error) {
	answered := false
	defer func() {
		if !answered { // also if a hook has panicked
			t.end()
			r.notLed(t)
		}
	}()
	// t.try is passage.attempt for a plain request, and a function of tunnel.go or sticky.go
	// otherwise.
	if res, err = r.try(t, b); err != nil {
		return nil, err
	}
	r.bind(t, res)
	answered = true
	return res, nil
}

// mayRepeat reports whether a request of which bytes were sent may be sent to another
// backend. Requests that waited for a lost backend cost no budget. There may be many, but
// they fail only once, and never at more than half of the pool's backends. An attempt that was
// given up has paid already.
func (r *router) mayRepeat(t *trip, v verdict) bool {
	return idempotent(t.in) && (v.lost || t.paid || r.budget.spend())
}

// choose returns the next backend to try, which counts the request from now on. It returns nil
// if the client's home was lost meanwhile, as it may be while the client waits for room there:
// that has to be judged anew. failure is the error of the attempt before, or nil.
func (r *router) choose(t *trip, failure error) (*balancer.Backend, error) {
	if home := r.pool.Get(t.home()); home != nil {
		for r.awaits(t, home) && isGone(home) {
			if !pause.For(t.in.Context(), waitStep) {
				return nil, t.in.Context().Err()
			}
		}
		switch {
		case r.gone == GoneRefuse && (t.refused || isGone(home)):
			return nil, fmt.Errorf("backend %s: %w", home.ID(), errRefused)
		case (r.gone == GoneRefuse || t.pin.Fixed) && len(t.tried) > 0:
			return nil, failure
		}
	}
	home := t.home()
	if b := r.led(t); b != nil {
		home = b.ID()
	}
	b, err := r.pool.Acquire(t.in.Context(), t.in, home, t.turn(), t.tunnel, t.tried...)
	if b == nil || b.ID() != home {
		r.notLed(t)
	}
	if err == nil {
		t.backend, t.counted = b, true
		if _, ok := r.affinity.(affinity.GoneHandler); ok && t.pin.Fixed && b.ID() != home { // it was lost just now
			t.end()
			return nil, nil
		}
		return b, nil
	}
	if errors.Is(err, balancer.ErrLost) {
		return nil, nil
	}
	if failure != nil {
		err = fmt.Errorf("%w that wasn't tried; the last attempt: %w", err, failure)
	}
	return nil, err
}
