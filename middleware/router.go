package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/upgrade"
)

// Gone says what happens to a client whose home is gone: Down, or refusing
// connections. A home that was removed from the pool won't come back, and one
// that is drained wants its clients to leave: their clients always move.
type Gone int

const (
	// Move gives the client a new home at once.
	Move Gone = iota
	// Wait gives the home a moment to come back, as a restarting process does,
	// and then moves the client.
	Wait
	// Refuse answers 503 until the home is back: for backends that hold what no
	// other backend can know.
	Refuse
)

// waitStep is how often a waiting request asks whether its home is back.
const waitStep = 50 * time.Millisecond

var errRefused = errors.New("the client's home is gone, and it may not move")

// A router finds a backend for a request and stays with it until an answer is
// there: what Gateway and Sticky have in common.
type router struct {
	pool     *balancer.Pool
	affinity affinity.Affinity
	gone     Gone
	wait     time.Duration
	retry    Retry
	budget   *budget
	trace    *Trace
	log      *slog.Logger

	warned   atomic.Int64 // the Unix time of the last warning
	unwarned atomic.Int64 // warnings not written since then
}

// newRouter checks what a router needs of o.
func newRouter(pool *balancer.Pool, o Options) (*router, error) {
	if pool == nil {
		return nil, errors.New("limpet: a pool is needed")
	}
	if o.Affinity == nil {
		o.Affinity = &affinity.Cookie{}
	}
	if o.Gone < Move || o.Gone > Refuse {
		return nil, fmt.Errorf("limpet: Gone is %d; want Move, Wait or Refuse", o.Gone)
	}
	if o.WaitFor <= 0 {
		o.WaitFor = 5 * time.Second
	}
	if v, ok := o.Affinity.(affinity.Validator); ok {
		if err := v.Validate(); err != nil {
			return nil, fmt.Errorf("limpet: %w", err)
		}
	}
	if t, ok := o.Affinity.(affinity.Truster); ok {
		t.Trust(o.ClientIP.Addr, o.ClientIP.Secure)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	retry := o.Retry.withDefaults()
	return &router{
		pool: pool, affinity: o.Affinity, gone: o.Gone, wait: o.WaitFor, retry: retry,
		budget: newBudget(retry), trace: o.Trace, log: o.Logger,
	}, nil
}

// A trip is one request's way to a backend and back.
type trip struct {
	in   *http.Request // what the affinity sees: the client's request
	pin  affinity.Pin
	body *replay // nil for a request without a body

	// try sends the request to b. An answer of any status is a success; an
	// error means that there was none.
	try func(b *balancer.Backend) (*http.Response, error)

	backend *balancer.Backend // who answered
	end     func()            // ends the backend's count of this request

	tried   []*balancer.Backend
	first   [4]*balancer.Backend // room for tried
	refused bool                 // the home refused the connection
	until   time.Time            // with Wait: when the client moves
}

// find asks the affinity whom the request belongs to. An affinity in trouble
// never stops a request: it goes on with what is known.
func (s *router) find(r *http.Request) affinity.Pin {
	pin, err := s.affinity.Find(r)
	if err != nil {
		s.warn(r.Context(), "affinity lookup failed", "err", err)
	}
	s.trace.found(r, pin)
	return pin
}

// rewrite takes the affinity's mark off the outgoing request.
func (s *router) rewrite(out *http.Request, pin affinity.Pin) {
	if rw, ok := s.affinity.(affinity.Rewriter); ok {
		rw.Rewrite(out, pin)
	}
}

// send picks backends and tries them until one answers, and binds the client to
// its home on that answer. On success t.backend and t.end are set, and the
// caller owes the call of t.end.
func (s *router) send(t *trip) (*http.Response, error) {
	s.budget.earn()
	t.tried = t.first[:0]
	ctx := t.in.Context()
	var failure error
	for sent := 0; ; {
		b, err := s.choose(t, failure)
		if err != nil {
			return nil, err
		}
		s.trace.picked(t.in, b)
		end := b.Begin()
		res, err := t.try(b)
		if err == nil {
			t.backend, t.end = b, end
			s.bind(t, res)
			return res, nil
		}
		end()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("backend %s: %w", b.ID(), context.Cause(ctx))
		}
		if clientFault(err) {
			return nil, err
		}
		failure = err

		refused := errors.Is(err, syscall.ECONNREFUSED)
		free := refused && !wasSent(err)
		if b.ID() == t.pin.Backend && refused {
			t.refused = true
		}
		if !free {
			sent++
		}
		if !errors.Is(err, balancer.ErrLost) {
			s.pool.Report(b, err)
		}
		again := sent < s.retry.Attempts && t.body.again() && s.mayRepeat(t, err)
		s.trace.failed(t.in, b, err, again)
		if !again {
			return nil, err
		}
		s.log.DebugContext(ctx, "attempt failed", "backend", b.ID(), "err", err)
		if refused && s.awaits(t, b) {
			if !sleep(ctx, waitStep) {
				return nil, context.Cause(ctx)
			}
			continue
		}
		t.tried = append(t.tried, b)
	}
}

// mayRepeat reports whether a request that failed with err may be sent to another
// backend. The requests that waited for a lost backend cost no budget: there may
// be many, but they come once, and never from more than half of the pool.
func (s *router) mayRepeat(t *trip, err error) bool {
	if !wasSent(err) {
		return true
	}
	return idempotent(t.in) && (errors.Is(err, balancer.ErrLost) || s.budget.spend())
}

// choose returns the next backend to try. failure is why the one before failed.
func (s *router) choose(t *trip, failure error) (*balancer.Backend, error) {
	if t.pin.Backend != "" {
		home := s.pool.Get(t.pin.Backend)
		for s.awaits(t, home) && home.State() == balancer.Down {
			if !sleep(t.in.Context(), waitStep) {
				return nil, context.Cause(t.in.Context())
			}
			home = s.pool.Get(t.pin.Backend)
		}
		if s.gone == Refuse && home != nil && (t.refused || home.State() == balancer.Down) {
			return nil, fmt.Errorf("backend %s: %w", t.pin.Backend, errRefused)
		}
		if t.pin.Fixed && len(t.tried) > 0 {
			return nil, failure
		}
	}
	b, err := s.pool.Pick(t.in, t.pin.Backend, t.pin.Key, t.tried...)
	if err != nil && failure != nil {
		err = fmt.Errorf("%w; the last attempt: %w", err, failure)
	}
	return b, err
}

// awaits reports whether the request should give its home b time to come back.
func (s *router) awaits(t *trip, b *balancer.Backend) bool {
	if s.gone != Wait || b == nil || b.ID() != t.pin.Backend {
		return false
	}
	if t.until.IsZero() {
		t.until = time.Now().Add(s.wait)
	}
	return time.Now().Before(t.until)
}

// bind ties the client to its home on the answer. The home is the backend that
// answered, except when that one only stood in: a home that failed a single
// request but is neither Down nor refusing keeps its client, or the requests
// that a client has under way side by side would end up on two backends.
func (s *router) bind(t *trip, res *http.Response) {
	from, home := t.pin.Backend, t.backend.ID()
	if from != "" && from != home && !t.refused {
		if b := s.pool.Get(from); b != nil && b.Keeps(t.pin.Key) {
			home = from
		}
	}
	if from != home {
		s.trace.bound(t.in, from, home)
	}
	out := res.Request
	res.Request = t.in
	key, err := s.affinity.Bind(res, t.pin, home)
	if err != nil {
		s.warn(t.in.Context(), "affinity could not bind a client", "backend", home, "err", err)
	}
	t.pin.Key = key
	res.Request = out
}

// goneAnswer returns the affinity's own answer to a request that can't move and
// whose home is gone, or nil.
func (s *router) goneAnswer(r *http.Request, pin affinity.Pin) *http.Response {
	goner, ok := s.affinity.(affinity.Goner)
	if !ok || !pin.Fixed || pin.Backend == "" {
		return nil
	}
	if home := s.pool.Get(pin.Backend); home != nil && home.Keeps(pin.Key) {
		return nil
	}
	return goner.Gone(r, pin)
}

// warn logs a warning, at most one a second: what fails requests fails many.
func (s *router) warn(ctx context.Context, msg string, args ...any) {
	now, last := time.Now().Unix(), s.warned.Load()
	if now == last || !s.warned.CompareAndSwap(last, now) {
		s.unwarned.Add(1)
		return
	}
	if n := s.unwarned.Swap(0); n > 0 {
		args = append(args, "unwritten", n)
	}
	s.log.WarnContext(ctx, msg, args...)
}

// wasSent reports whether bytes of a request that failed with err may have
// reached the backend.
func wasSent(err error) bool {
	var failed *balancer.Error
	if errors.As(err, &failed) {
		return failed.Sent
	}
	var op *net.OpError // from a RoundTripper of the user's own
	return !errors.As(err, &op) || op.Op != "dial"
}

// clientFault reports whether err says something about the request and nothing
// about the backend, or that this gateway takes no more tunnels.
func clientFault(err error) bool {
	var body *bodyError
	return errors.As(err, &body) || errors.Is(err, upgrade.ErrBadRequest) || errors.Is(err, upgrade.ErrClosed)
}

// StatusCode returns the status of the gateway's own answer to a request that
// failed with err, for an ErrorHandler: 503 when no backend could take it, 504
// when time ran out or the backend was lost while the request waited for it, 413
// or 400 when the request itself was at fault, 499 (nginx's) when the client
// went away, and otherwise 502.
func StatusCode(err error) int {
	var tooLarge *http.MaxBytesError
	var body *bodyError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.As(err, &body), errors.Is(err, upgrade.ErrBadRequest):
		return http.StatusBadRequest
	case errors.Is(err, errNoHijack):
		return http.StatusInternalServerError
	case errors.Is(err, context.Canceled):
		return 499
	case errors.Is(err, balancer.ErrLost), errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case errors.Is(err, errRefused), errors.Is(err, upgrade.ErrClosed):
		return http.StatusServiceUnavailable
	case errors.Is(err, balancer.ErrNoBackend):
		var failed *balancer.Error
		if errors.As(err, &failed) && failed.Sent {
			return http.StatusBadGateway
		}
		return http.StatusServiceUnavailable
	}
	return http.StatusBadGateway
}

// sleep waits for d and reports whether ctx is still alive then.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
