package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/httpfield"
	"github.com/limpet-go/limpet/internal/pause"
	"github.com/limpet-go/limpet/internal/typednil"
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

// newRouter returns a router with the settings of o that concern it, or an error that says
// which of them is wrong.
func newRouter(pool *balancer.Pool, o Options) (*router, error) {
	if pool == nil {
		return nil, errors.New("limpet: a pool is needed: make one with balancer.NewPool or balancer.ParsePool")
	}
	if o.Gone < GoneMove || o.Gone > GoneRefuse {
		return nil, fmt.Errorf("limpet: Gone is %d; want GoneMove, GoneWait or GoneRefuse", o.Gone)
	}
	if err := o.ClientIP.validate(); err != nil {
		return nil, fmt.Errorf("limpet: %w", err)
	}
	if o.MaxBody < 0 {
		return nil, fmt.Errorf("limpet: MaxBody is %d; want a number of bytes, or 0 for no limit", o.MaxBody)
	}
	if o.WaitFor < 0 {
		return nil, fmt.Errorf("limpet: WaitFor %v is negative; 0 is the default, and Gone: GoneMove doesn't wait", o.WaitFor)
	}
	if o.WaitFor > 0 && o.WaitFor < time.Millisecond {
		return nil, fmt.Errorf("limpet: WaitFor is %v: a number without a unit counts nanoseconds; want 5*time.Second, say", o.WaitFor)
	}
	if o.WaitFor == 0 {
		o.WaitFor = 5 * time.Second
	}
	if err := o.Retry.validate(); err != nil {
		return nil, err
	}
	if err := validateField("PinHeader", o.PinHeader, "Limpet-Pin"); err != nil {
		return nil, err
	}
	if err := validateField("RequestID", o.RequestID, "X-Request-Id"); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Affinity == nil {
		o.Affinity = defaultAffinity(o.Logger)
	}
	if o.Handover != nil {
		o.Handover.inherit(o.Affinity)
	}
	if err := validate(o.Affinity); err != nil {
		return nil, err
	}
	if t, ok := o.Affinity.(affinity.Truster); ok {
		t.Trust(o.ClientIP.Addr, o.ClientIP.Secure)
	}
	retry := o.Retry.withDefaults()
	return &router{
		pool: pool, affinity: o.Affinity, gone: o.Gone, wait: o.WaitFor, retry: retry, maxBody: o.MaxBody,
		budget: newBudget(retry), observers: &observers{}, log: o.Logger, header: o.PinHeader,
		doctor: newDoctor(pool, o.Affinity, o.ClientIP, o.Logger), rareWarning: rareWarning{log: o.Logger},
	}, nil
}

// defaultAffinity returns the affinity of a gateway whose user has chosen none. It
// serves every client: those of Socket.IO by their sessions, because outside of
// browsers they keep no cookies, and all others by a cookie. Their secrets are random,
// so it logs a warning that says where that isn't enough.
func defaultAffinity(log *slog.Logger) affinity.Affinity {
	log.Warn("limpet: no Options.Affinity, so pins are sealed with a random secret: other replicas don't know them, nor does this one after a restart, unless a Takeover hands the secret over. " +
		"Share a secret and write Affinity: affinity.Chain{&affinity.EngineIO{Secrets: secrets}, &affinity.Cookie{Secrets: secrets}}")
	said := slog.New(slog.DiscardHandler)
	return affinity.Chain{&affinity.EngineIO{Logger: said}, &affinity.Cookie{Logger: said}}
}

// validate returns the error of part's Validate method, if it has one: affinities, buses
// and transports do. A nil pointer in an interface, which isn't nil itself, is an error.
func validate(part any) error {
	if err := typednil.Check(part); err != nil {
		return fmt.Errorf("limpet: %w", err)
	}
	if v, ok := part.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return fmt.Errorf("limpet: %w", err)
		}
	}
	return nil
}

// validateField returns an error if name, the value of an option, can't be the name of a
// field, or is that of a field with another meaning in answers.
func validateField(option, name, example string) error {
	if name == "" {
		return nil
	}
	token := http.Cookie{Name: name} // as a field's name is one, RFC 9110 section 5.6.2
	if token.Valid() != nil {
		return fmt.Errorf("limpet: %s %q: no field can have this name; want one such as %s", option, name, example)
	}
	field := http.CanonicalHeaderKey(name)
	if httpfield.IsHopByHop(field) || field == "Set-Cookie" || field == "Location" || strings.HasPrefix(field, "Content-") || strings.HasPrefix(field, "Sec-Websocket-") {
		return fmt.Errorf("limpet: %s %q has a meaning of its own in HTTP; want a field that nothing else uses, such as %s", option, name, example)
	}
	return nil
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

// bind ties the client to its home on the answer. The home is the backend that
// answered, unless that one only stood in: a home that failed a single request,
// but is neither Down nor refusing connections, keeps its client. Otherwise the
// requests that a client has under way at the same time would end up on two
// backends.
func (r *router) bind(t *trip, res *http.Response) {
	from, home := t.home(), t.backend.ID()
	if from != "" && from != home && !t.refused {
		if b := r.pool.Get(from); b != nil && b.Keeps(t.pin.Key) {
			home = from
		}
	}
	a := affinity.Answer{Response: res, Request: t.in, Found: t.pin, Home: home}
	if home != t.backend.ID() {
		a.StandIn = t.backend.ID()
	}
	if res.StatusCode == http.StatusBadRequest { // no other answer is worth allocating the function
		a.UnknownSession = func(pin affinity.Pin) {
			t.unknown = true
			r.unknownSession(t, pin)
		}
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		a.Keep = t.keep
	}
	if t.move != nil {
		t.move.bound(t.pin, home)
	}
	if t.led != nil {
		r.arrivals.arrived(t.led)
		t.led = nil
	}
	key, err := r.affinity.Bind(a)
	if err != nil {
		r.warn(t.in.Context(), "affinity could not bind a client", "backend", home, "err", err)
	}
	if r.header != "" || t.rec != nil {
		word := outcome(t.pin, home)
		t.rec.bound(word, key)
		if r.header != "" {
			res.Header.Set(r.header, word)
		}
	}
	found := t.pin
	t.pin.Key = key
	r.answered(t, res, found, t.unknown)
}

// outcome returns the value of PinHeader for a pin that is now bound to home.
func outcome(found affinity.Pin, home string) string {
	switch {
	case found.Backend == home:
		return affinity.Hit.String()
	case found.Backend != "":
		return "moved"
	case found.Status == affinity.None:
		return "new"
	}
	return found.Status.String()
}
