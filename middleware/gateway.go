// Package middleware is what a service mounts: the Gateway, an http.Handler that
// brings each client to its own backend, and the parts of it that work alone.
// Programs that use chi have a package of that name already, so the
// documentation imports this one as limpet.
package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/upgrade"
)

// Options are the choices a Gateway leaves to its user. The zero value, and nil,
// are good defaults.
type Options struct {
	// Affinity tells whom a client belongs to. Default: an affinity.Cookie with
	// a random key, which does for one process and warns about it.
	Affinity affinity.Affinity

	// Transport reaches the backends, for requests and tunnels alike. Default:
	// the pool's, which its health checks use too.
	Transport *balancer.Transport

	// Upgrade holds the limits of tunnels. The gateway sets its Dial, and owns
	// it: it can't be shared with another gateway.
	Upgrade *upgrade.Proxy

	// ClientIP says whose word about a client's address and TLS is believed.
	ClientIP ClientIP

	// Gone says what happens to a client whose home is gone, and WaitFor how
	// long GoneWait waits. Default 5 s.
	Gone    Gone
	WaitFor time.Duration

	// Retry limits how often failed requests are sent again.
	Retry Retry

	// MaxBody is how many bytes a request's body may have, 0 for any number. A
	// longer one is answered with 413 and the end of its HTTP/1 connection: at once
	// if the client says its length, or where it crosses the limit, and an answer that
	// has begun by then breaks off. It is better than [http.MaxBytesReader] around the
	// gateway, as of http.MaxBytesHandler and chi's RequestSize. Such a body, and that of
	// any middleware which wraps it, might write to the client when it is read; so it
	// isn't read on once the backend answers, and informational answers that come while
	// it is read are dropped.
	MaxBody int64

	// BackendHost sends the backend's own host in the Host field instead of
	// the client's.
	BackendHost bool

	// Rewrite may change the outgoing request, after the gateway has prepared
	// it: its path, header and Host. It runs once a request, whatever number of
	// attempts it takes; the backend isn't known yet. Who changes URL.Path changes
	// URL.RawPath too, as [url.URL.JoinPath] does: where the client has escaped
	// what would be read otherwise, as %2F, the request is refused with 400.
	Rewrite func(in, out *http.Request)

	// ModifyResponse may change a backend's answer, a 101 included, before the
	// client sees it. With an error the client gets ErrorHandler's answer
	// instead. balancer.BackendFromContext(res.Request.Context()) is the backend
	// that answered.
	ModifyResponse func(res *http.Response) error

	// ErrorHandler writes the gateway's own answer when there is none from a
	// backend. StatusCode tells which status err deserves. Default: that status
	// with its name as plain text, and Retry-After with a 503.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	// PinHeader names a field of the answer that says what became of the client's
	// pin, "Limpet-Pin" for example: hit (it came home), new (it had no mark),
	// moved (its home is gone), or expired, forged, unknown (its mark was, and it
	// has a new home). A client of an affinity without a memory, a Hash, is always
	// new. "": no such field.
	PinHeader string

	// Bus joins the gateways in front of the same backends, its replicas: they
	// share the operator's decisions and CloseSession, as [Gateway.Run] says, and
	// nothing else. Who can publish on it can turn backends off. nil: this
	// gateway is alone.
	Bus bus.Bus

	// BusTopic is where the replicas meet. Gateways of other backends on the same
	// bus need another one. Default: "limpet:gateway".
	BusTopic string

	Trace *Trace

	// Logger hears of requests that failed, once a second at most, and once of each
	// thing that is set up wrong. Default: slog.Default().
	Logger *slog.Logger
}

// A Gateway is an http.Handler that passes requests and WebSockets on to the
// backends of a pool, each client to its own. Package limpet describes the path
// of a request and what happens when something fails.
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
	unwatch     func()
	replicas    *replicas // nil without a Bus
	remarks     remarks
}

// NewGateway returns a gateway in front of pool. It starts nothing: the caller
// runs the pool's health checks with `go pool.Run(ctx)`, and with a Bus
// `go gateway.Run(ctx)`; Serve does both. It fails when pool is nil, when a setting
// of Options is wrong or one of the affinity, the bus, the transport or the limits
// of tunnels, and when Options.Upgrade is another gateway's. What is only seen to be
// wrong while requests are served is told the Logger, each once.
func NewGateway(pool *balancer.Pool, opts *Options) (*Gateway, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	router, err := newRouter(pool, o)
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		router: router, transport: o.Transport, upgrade: o.Upgrade, client: o.ClientIP,
		backendHost: o.BackendHost, rewrite: o.Rewrite, modify: o.ModifyResponse, fail: o.ErrorHandler,
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
	g.upgrade.Dial = func(ctx context.Context, out *http.Request) (net.Conn, error) {
		return g.transport.Connect(ctx, balancer.BackendFromContext(ctx))
	}
	if g.fail == nil {
		g.fail = writeError
	}
	if o.Bus != nil {
		g.replicas = newReplicas(o, pool, g.closeSession, router.log)
	}
	g.unwatch = pool.OnChange(g.watch)
	for b := range pool.All() {
		g.drain(b)
	}
	return g, nil
}

// Middleware returns a middleware that serves the requests match accepts and
// leaves the others to the next handler.
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

// Run takes part in Options.Bus until ctx ends, and then returns nil. Without a
// Bus it returns at once. A second one while the first runs returns an error.
//
// The operator's decisions, which are those made with Drain, Off and Undrain of
// any replica's pool, hold on all of them: the last one about a backend counts, as
// the replicas' clocks have it; one that comes from more than a day ahead is
// refused, with a warning. A drain has the same turns and the same end everywhere,
// as far as the clocks agree. Health is never shared: each replica judges for
// itself.
//
// A replica that was away, or starts, is told what the others know; what was
// decided on both sides of a broken network is settled in the same way, within
// seconds. Decisions about a backend that isn't in the pool are remembered (the
// latest 256) until it is added. One that was in the pool, is removed and added
// again serves afresh, on all replicas. When the last replica ends, all decisions
// are forgotten.
func (g *Gateway) Run(ctx context.Context) error {
	if g.replicas == nil {
		return nil
	}
	return g.replicas.run(ctx)
}

// CloseSession closes the tunnels of one client, on this replica and on all that
// the Bus reaches, as [upgrade.Tunnel.Close] does. The key is that of its pin,
// which [Trace].Found and [upgrade.Tunnel.Key] tell; with an affinity that hashes
// an address these may be many people's. The client may come back at once: who
// is to stay away has to be refused where he signs in.
//
// An error says that the other replicas may not have been told, as when nobody has
// called Run. One that is cut off from the bus isn't told later.
func (g *Gateway) CloseSession(ctx context.Context, key string, code int, reason string) error {
	if key == "" {
		return errors.New("limpet: close session: no key")
	}
	n := sessionNote{Session: sessionHash(key), Code: code, Reason: reason}
	g.closeSession(n)
	if g.replicas == nil {
		return nil
	}
	err := g.replicas.publish(ctx, note{From: g.replicas.id, Close: &n})
	if err == nil && !g.replicas.ran.Load() {
		err = errors.New("limpet: close session: this gateway has a Bus and hears nothing on it, and the other replicas may be as deaf: call go gateway.Run(ctx), or serve with Gateway.Serve")
	}
	return err
}

func (g *Gateway) closeSession(n sessionNote) {
	for t := range g.upgrade.Tunnels() {
		if key := t.Key(); key != "" && sessionHash(key) == n.Session {
			t.Close(n.Code, n.Reason)
		}
	}
}

// Shutdown closes the gateway's tunnels, spread over the time that ctx has left,
// with close code 1012 (service restart), and returns when all are gone or ctx
// ends; then it cuts the rest and returns ctx's error. New tunnels are refused
// from the start, plain requests are served as before: stop the http.Server
// beside it, which knows nothing of tunnels.
func (g *Gateway) Shutdown(ctx context.Context) error {
	err := g.upgrade.Shutdown(ctx)
	g.unwatch()
	g.transport.CloseIdleConnections()
	return err
}

// ServeHTTP brings the request to its backend and the answer to the client. The
// path isn't normalised: it arrives as the client wrote it, and r.URL and r.Host
// are what handlers in front have seen. What can't be passed on so is answered with
// 400, as are targets that are neither a path, a URL of http or https with a host,
// nor OPTIONS *, and hosts that RFC 3986 doesn't allow.
//
// Some things are left to net/http's server. It takes a client that closes its side
// of an HTTP/1 connection behind a request for one that went away, and that
// request is given up. It serves a request with both Transfer-Encoding and
// Content-Length by the former, and one over HTTP/1.0 as if it had no
// Transfer-Encoding; it removes the other field, so that nobody can tell, and may
// keep the connection, which RFC 9112 section 6.1 forbids.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !g.remarks.done.Load() {
		g.checkUse(r)
	}
	if r.Method == http.MethodConnect {
		// A backend that said 200 would get a connection to anybody (RFC 9110
		// section 9.3.6): this is no forward proxy.
		http.Error(w, http.StatusText(http.StatusNotImplemented), http.StatusNotImplemented)
		return
	}
	if err := checkRequest(r); err != nil {
		g.refuse(w, r, err)
		return
	}
	if g.upgrade.Protocol(r) != "" {
		g.tunnel(w, r)
		return
	}
	g.proxy(w, r)
}

// proxy serves a plain request.
func (g *Gateway) proxy(w http.ResponseWriter, r *http.Request) {
	p := passages.Get().(*passage)
	p.gateway, p.w = g, w
	p.in, p.pin = r, g.router.find(r)
	if err := g.prepare(&p.out, r, p.pin); err != nil {
		g.refuse(w, r, err)
		return
	}
	if p.body = newReplay(g.router, r, &p.out.Request); p.body != nil {
		p.classifyBody()
		defer p.body.join()
		if ctx := p.out.Context(); p.body.touches && r.ProtoMajor == 1 && ctx.Done() != nil {
			ctx, cancel := p.body.outlive(ctx)
			defer cancel()
			p.out.Request = *p.out.WithContext(ctx)
		}
	}
	res, err := g.router.send(&p.trip)
	if err != nil {
		err = p.body.reason(err)
	}
	p.body.answerEarly(w, r)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	if p.backend != nil {
		defer p.backend.End() // not p.end: p may be another request's by then
	}
	g.answer(w, &p.trip, res)
	p.recycle()
}

// final checks that res is a final answer, which a 101 that nobody asked for isn't,
// and takes off what concerns the connection to b only.
func final(res *http.Response, b *balancer.Backend) (*http.Response, error) {
	if res.StatusCode < 200 {
		res.Body.Close()
		return nil, &balancer.Error{Backend: b.ID(), Sent: true, Err: fmt.Errorf("answered %s, which is no final status", res.Status)}
	}
	endToEnd(res)
	return res, nil
}

// answer gives a backend's answer to the client, or the affinity's own.
func (g *Gateway) answer(w http.ResponseWriter, t *trip, res *http.Response) {
	if t.backend != nil && g.modify != nil {
		if err := g.modify(res); err != nil {
			res.Body.Close()
			g.refuse(w, t.in, err)
			return
		}
	}
	writeAnswer(w, t.in, res)
}

// refuse gives the gateway's own answer.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if StatusCode(err) != 499 {
		g.router.warn(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	g.fail(w, r, err)
}

func writeError(w http.ResponseWriter, _ *http.Request, err error) {
	code := StatusCode(err)
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	http.Error(w, http.StatusText(code), code)
}
