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
