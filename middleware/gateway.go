package middleware

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/upgrade"
)

// A Gateway is an http.Handler that passes requests and WebSockets on to the
// backends of a pool, each client's to its own. The documentation of package limpet
// says what happens when something fails.
//
// All methods may be called concurrently.
type Gateway struct {
	router      *router
	transport   *balancer.Transport
	upgrade     *upgrade.Proxy
	client      ClientIP
	backendHost bool
	rewrite     func(in, out *http.Request)
	modify      func(*http.Response) error
	fail        func(http.ResponseWriter, *http.Request, error)
	requestID   string // the field, "" for none
	name        string
	since       time.Time
	unwatch     func()
	replicas    *replicas // nil without a Bus
	lameDuck    time.Duration
	leaving     atomic.Bool // Leave was called
	polls       polls
	scans       later // of polls, while clients have to leave their homes
	releases    later
	rebalancer  *rebalancer // nil without Options.Rebalance
	keeper      keeper
	handover    *Handover // nil without Options.Handover
	remarks     remarks
}

// NewGateway returns a gateway in front of pool. It starts nothing: the caller has to
// call `go pool.Run(ctx)` for health checks, and `go gateway.Run(ctx)` if there is a
// Bus. [Gateway.Serve] does both.
//
// A pool may be empty, as before its source has named a backend. That is logged, once.
//
// NewGateway fails when pool is nil, when Options.Upgrade belongs to another gateway,
// and when Options, the affinity, the bus, the transport or the limits of tunnels have
// a setting that is wrong. A mistake that shows only while requests are served is
// logged, once, and [Stats] has it as a [Finding].
func NewGateway(pool *balancer.Pool, opts *Options) (*Gateway, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.LameDuck < 0 {
		return nil, fmt.Errorf("limpet: LameDuck %v is negative; 0 begins the drain at once", o.LameDuck)
	}
	if o.LameDuck > 0 && o.LameDuck < time.Millisecond {
		return nil, fmt.Errorf("limpet: LameDuck is %v: a number without a unit counts nanoseconds; want 10*time.Second, say", o.LameDuck)
	}
	router, err := newRouter(pool, o)
	if err != nil {
		return nil, err
	}
	router.moves = &moves{}
	g := &Gateway{
		router: router, transport: o.Transport, upgrade: o.Upgrade, client: o.ClientIP,
		backendHost: o.BackendHost, rewrite: o.Rewrite, modify: o.ModifyResponse, fail: o.ErrorHandler,
		requestID: http.CanonicalHeaderKey(o.RequestID), name: o.Name, since: time.Now(),
		lameDuck: o.LameDuck,
	}
	if g.transport == nil {
		g.transport = pool.Transport()
	}
	if g.upgrade == nil {
		g.upgrade = &upgrade.Proxy{}
	}
	for _, part := range []any{g.transport, g.upgrade, o.Bus} {
		if err := validate(part); err != nil {
			return nil, err
		}
	}
	if g.upgrade.Dial != nil {
		return nil, errors.New("limpet: Options.Upgrade has a Dial, which the gateway sets: is it another gateway's?")
	}
	g.upgrade.Dial = g.dial
	g.polls.began = time.Now()
	g.keeper.failed = func(err error) {
		router.warn(context.Background(), "affinity could not keep the pin of a tunnel", "err", err)
	}
	if g.fail == nil {
		g.fail = new(errorPages).answer
	}
	if g.name == "" {
		g.name, _ = os.Hostname()
	}
	if o.Bus != nil {
		g.replicas = newReplicas(o, g)
	}
	if o.Handover != nil {
		if err := o.Handover.join(g); err != nil {
			return nil, err
		}
	}
	if g.rebalancer, err = newRebalancer(g, o.Rebalance); err != nil {
		return nil, err
	}
	if g.rebalancer != nil {
		router.arrivals = &g.rebalancer.arrivals
	}
	stops := []func(){pool.OnChange(g.watch), pool.OnUnanswered(g.signs)}
	if g.replicas != nil {
		stops = append(stops, pool.OnShares(g.replicas.sharesChanged))
	}
	g.unwatch = func() {
		for _, stop := range stops {
			stop()
		}
	}
	if pool.Len() == 0 {
		router.log.Warn("limpet: the pool has no backend: until one is added, which a source may be about to do, requests get 503 and the gateway isn't ready")
	}
	for b := range pool.All() {
		g.drain(b)
	}
	return g, nil
}

// Middleware returns a middleware that serves the requests for which match returns
// true, and passes the others to the next handler.
func (g *Gateway) Middleware(match func(*http.Request) bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if match(r) {
				g.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// Run exchanges messages with the replicas over Options.Bus until ctx ends, and then
// returns nil. Without a Bus it returns nil at once. It returns an error if another
// call of Run has not returned yet.
//
// The operator's decisions are those made with Drain, Off, Undrain, SetWeight and SetShares
// of any replica's pool. They hold on all replicas. The latest decision about a backend, or
// about the shares, counts by the replicas' clocks; a decision that is more than a day
// ahead of this replica's clock is refused with a warning. A drain has the same turns and
// the same end on all replicas, as far as their clocks agree. Health is never shared: each
// replica checks for itself.
//
// A replica that starts, or that was cut off, gets the others' decisions within
// seconds. If both sides of a broken network decided about the same backend, the later
// decision wins there too. Decisions about a backend that isn't in the pool are kept
// until it is added, the latest 256 of them. A backend that is removed from the pool
// and added again begins to serve, on all replicas. When the last replica ends, all
// decisions are forgotten.
func (g *Gateway) Run(ctx context.Context) error {
	if g.replicas == nil {
		return nil
	}
	return g.replicas.run(ctx)
}

// CloseSession closes the tunnels of one client as [upgrade.Tunnel.Close] does, on
// this replica and on all that the Bus reaches. The nodes of its polling sessions of
// Engine.IO are told that the sessions are over, of each session that has a request under
// way; a client that polls nearly always has one. key is the key of the client's pin,
// which [Record] and [upgrade.Tunnel.Key] give. With an affinity that hashes an
// address, many people may have the same key. The client may connect again at once: to
// keep it out, the application has to refuse it when it signs in.
//
// An error means that other replicas may not have got the message, for example because
// nobody has called Run. A replica that is cut off from the bus doesn't get it later.
func (g *Gateway) CloseSession(ctx context.Context, key string, code int, reason string) error {
	if key == "" {
		return errors.New("limpet: close session: no key")
	}
	n := sessionNote{Session: sessionHash(key), Code: code, Reason: reason}
	g.closeSession(n)
	return g.tellReplicas(ctx, "close session", note{Close: &n})
}

// tellReplicas publishes what the operator wants of a client, if there are replicas.
func (g *Gateway) tellReplicas(ctx context.Context, what string, n note) error {
	if g.replicas == nil {
		return nil
	}
	n.From = g.replicas.id
	err := g.replicas.publish(ctx, g.replicas.topic, n)
	if err == nil && !g.replicas.ran.Load() {
		err = fmt.Errorf("limpet: %s: this gateway has a Bus but does not take part in it, and other replicas may not either: call go gateway.Run(ctx), or serve with Gateway.Serve", what)
	}
	return err
}

func (g *Gateway) closeSession(n sessionNote) {
	for t := range g.upgrade.Tunnels() {
		if key := t.Key(); key != "" && sessionHash(key) == n.Session {
			t.Close(n.Code, n.Reason)
		}
	}
	g.endPollsOf(n.Session)
}

// Observe has o told what becomes of requests and tunnels that begin from now on, until
// stop is called. Any number of observers may be there at the same time.
func (g *Gateway) Observe(o Observer) (stop func()) { return g.router.observers.add(o) }

// Tunnels iterates over the gateway's tunnels, as [upgrade.Proxy.Tunnels] does. A tunnel's
// Group is the ID of its backend.
func (g *Gateway) Tunnels() iter.Seq[*upgrade.Tunnel] { return g.upgrade.Tunnels() }

// Pool returns the pool that the gateway is in front of.
func (g *Gateway) Pool() *balancer.Pool { return g.router.pool }

// Shutdown closes the gateway's tunnels with close code 1012 (service restart), spread
// over the time that ctx has left. It returns nil when all of them are closed. When ctx
// ends before that, it cuts the rest and returns ctx's error.
//
// New tunnels are refused from the start, but a handshake that is under way is completed.
// [Gateway.Ready] returns an error, as after [Gateway.Leave]. Plain requests are served as
// before: call Shutdown of the http.Server at the same time, and wait for both before the
// program ends. That of the http.Server knows nothing of tunnels and returns while they are
// open, so that a program which waits for it alone cuts them without a close frame.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.Leave()
	if g.handover != nil {
		g.handover.end()
	}
	err := g.upgrade.Shutdown(ctx)
	g.unwatch()
	g.scans.stop()
	g.releases.stop()
	g.rebalancer.stop()
	g.transport.CloseIdleConnections()
	return err
}

// ServeHTTP sends the request to the client's backend and copies the answer to the
// client. It doesn't normalise the path: the backend gets it as the client wrote it,
// and as handlers in front of the gateway saw it in r.URL. These requests are answered
// with 400:
//
//   - the target is neither a path, nor an http or https URL with a host, nor * with
//     the method OPTIONS,
//   - the target can't be passed on as it is,
//   - the host is none that RFC 3986 allows.
//
// Some behaviour is that of net/http's server, and the gateway can't change it. When a
// client closes its side of an HTTP/1 connection after the request, the server takes
// that for a client that went away, and the request is given up. A request with both
// Transfer-Encoding and Content-Length is read by the former, and a Transfer-Encoding
// over HTTP/1.0 is ignored. The server removes the field that it ignores, so that
// handlers can't tell, and it may keep the connection, which RFC 9112 section 6.1
// forbids.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !g.remarks.done.Load() {
		g.checkUse(r)
	}
	id := ""
	if g.requestID != "" {
		id = identify(w, r, g.requestID)
	}
	rec := g.router.record(r, g.client, id)
	if rec != nil {
		defer rec.report()
	}
	if r.Method == http.MethodConnect {
		// The gateway is no forward proxy: with an answer of 200 to a CONNECT the
		// client would get a raw connection to the backend (RFC 9110 section 9.3.6).
		g.refuse(w, r, rec, errConnect)
		return
	}
	if err := checkRequest(r); err != nil {
		g.refuse(w, r, rec, err)
		return
	}
	if g.upgrade.Protocol(r) != "" {
		g.tunnel(w, r, rec, id)
		return
	}
	g.proxy(w, r, rec, id)
}

// proxy serves a plain request. The handler's goroutine runs all of it. The transport
// may have a goroutine that reads the body; join waits for its last Read, also when a
// hook panics, so that no Read goes on after proxy has returned.
//
// The passage is given back to its pool only at the end of a request that was answered.
// After an error or a panic, somebody may still use it.
func (g *Gateway) proxy(w http.ResponseWriter, r *http.Request, rec *Record, id string) {
	p := passages.Get().(*passage)
	p.gateway, p.w = g, w
	p.in, p.rec, p.pin = r, rec, g.router.find(r)
	rec.found(p.pin)
	if err := g.prepare(&p.out, r, p.pin, id); err != nil {
		g.refuse(w, r, rec, err)
		return
	}
	if p.body = newReplay(g.router, r, &p.out.Request); p.body != nil {
		if !p.body.complete() {
			p.classifyBody()
		}
		if rec != nil {
			rec.body = p.body
		}
		defer p.body.join()
		if p.body.touches && r.ProtoMajor == 1 && p.out.Context().Done() != nil {
			defer p.outlive()()
		}
	}
	res, err := g.send(p)
	if err == nil {
		if p.backend != nil {
			defer p.backend.End() // not p.end: p may be another request's by then
		}
		res, err = p.body.hold(res)
	}
	if err != nil {
		err = p.body.reason(err)
	}
	p.body.answerEarly(w, r)
	if err != nil {
		g.refuse(w, r, rec, err)
		return
	}
	g.answer(w, &p.trip, res)
	p.recycle()
}

// final returns res without the fields that concern only the connection to b. It
// returns an error if res isn't a final answer: a 101 that nobody asked for isn't one.
func final(res *http.Response, b *balancer.Backend) (*http.Response, error) {
	if res.StatusCode < 200 {
		res.Body.Close()
		return nil, &balancer.Error{Backend: b.ID(), Sent: true, Err: fmt.Errorf("answered %s, which is no final status", res.Status)}
	}
	endToEnd(res)
	return res, nil
}

// answer sends res to the client: a backend's answer, or that of the affinity to a
// client whose home is gone.
func (g *Gateway) answer(w http.ResponseWriter, t *trip, res *http.Response) {
	if g.requestID != "" {
		delete(res.Header, g.requestID) // a backend may send it back
	}
	if err := g.modifyResponse(t.rec, res); err != nil {
		res.Body.Close()
		g.refuse(w, t.in, t.rec, err)
		return
	}
	if t.backend == nil {
		yield(res.Header, w.Header())
	}
	g.endKeepAlive(w)
	if t.backend != nil {
		const origin = "Access-Control-Allow-Origin"
		g.router.doctor.checkCORS(t, len(w.Header()[origin]), len(res.Header[origin]))
	}
	writeAnswer(w, t, res)
}

// modifyResponse lets Options.ModifyResponse change a backend's answer, and notes in the
// record what it has become. If the hook panics, the record has no status.
func (g *Gateway) modifyResponse(rec *Record, res *http.Response) error {
	if g.modify == nil {
		return nil
	}
	if rec != nil {
		rec.Status = 0
	}
	err := g.modify(res)
	if rec != nil {
		rec.Status, rec.Header = res.StatusCode, res.Header
	}
	return err
}

// refuse sends the gateway's own answer to a request that failed with err. A client
// that went away (499) isn't worth a warning.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, rec *Record, err error) {
	if rec.refused(err); rec != nil && !rec.Left {
		w = &ownAnswer{w, rec}
	}
	if StatusCode(err) != 499 {
		g.router.warn(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if g.requestID != "" { // ErrorPages doesn't know the field's name
		r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, w.Header().Get(g.requestID)))
	}
	g.endKeepAlive(w)
	g.fail(w, r, err)
}
