package middleware

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/upgrade"
)

// Sticky is an http.RoundTripper that adds the choice of backends, affinity and failover
// to a proxy that the service has already:
//
//	proxy := &httputil.ReverseProxy{
//		Rewrite:   func(r *httputil.ProxyRequest) { r.SetXForwarded() },
//		Transport: &limpet.Sticky{Pool: pool},
//		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
//			w.WriteHeader(limpet.StatusCode(err))
//		},
//	}
//
// Sticky finds the client's address in the request that it gets. Behind a load balancer
// that address is in X-Forwarded-For, which ReverseProxy removes before it calls Rewrite.
// Rewrite must put the fields back, so that ClientIP can read them:
//
//	r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
//	r.SetXForwarded()
//	r.Out.Header["X-Forwarded-Proto"] = r.In.Header["X-Forwarded-Proto"]
//
// Sticky replaces the scheme and host that the proxy has put into the URL with the
// backend's. WebSockets work too, but their tunnels belong to the proxy: they aren't
// closed when their backend goes Down, as those of a [Gateway] are.
//
// ReverseProxy writes to the client while the transport still reads the request's body.
// So limit bodies with MaxBody and never with [http.MaxBytesReader] in front, whose Read
// may write to the client at the same time.
//
// The fields have the same meaning as those of [Options]. They are read at the first
// request, and must not change after that. RoundTrip may be called concurrently.
type Sticky struct {
	Pool      *balancer.Pool    // must not be nil
	Affinity  affinity.Affinity // nil: the default of Options.Affinity
	Transport http.RoundTripper // nil: the pool's balancer.Transport
	ClientIP  ClientIP
	Gone      Gone
	WaitFor   time.Duration
	Retry     Retry
	MaxBody   int64
	PinHeader string
	Logger    *slog.Logger

	observers observers
	once      sync.Once
	router    *router
	transport http.RoundTripper
	err       error
}

func (s *Sticky) start() {
	s.router, s.err = newRouter(s.Pool, Options{
		Affinity: s.Affinity, ClientIP: s.ClientIP, Gone: s.Gone, WaitFor: s.WaitFor,
		Retry: s.Retry, MaxBody: s.MaxBody, PinHeader: s.PinHeader, Logger: s.Logger,
	})
	if s.err == nil {
		s.router.observers = &s.observers
	}
	if s.transport = s.Transport; s.transport == nil && s.err == nil {
		s.transport = s.Pool.Transport()
	}
	if s.err == nil {
		s.err = validate(s.transport)
	}
}

// RoundTrip sends req to the client's backend and returns its answer, on which the
// affinity has bound the client. If all attempts fail it returns the error of the last
// one, for which [StatusCode] returns a status. If a field of s is set wrongly, every call
// returns an error that says so.
func (s *Sticky) RoundTrip(req *http.Request) (*http.Response, error) {
	s.once.Do(s.start)
	if s.err != nil {
		return nil, closing(req, s.err)
	}
	if opaque := req.URL.Opaque; opaque != "" && opaque[0] != '/' {
		// ReverseProxy passes on what a client wrote, such as x:http://host/admin.
		return nil, closing(req, fmt.Errorf("%w: the target is no path", errMalformed))
	}
	rec := s.router.record(req, s.ClientIP, "")
	t := &trip{in: req, rec: rec, pin: s.router.find(req), tunnel: upgrade.Is(req)}
	rec.found(t.pin)
	out := req.Clone(s.ClientIP.withClient(req, s.transport))
	s.router.rewrite(out, t.pin)
	t.body = newReplay(s.router, req, out)
	if rec != nil {
		rec.body = t.body
	}
	t.try = func(b *balancer.Backend) (*http.Response, error) {
		attempt, err := t.request(balancer.WithBackend(out.Context(), b), out, b)
		if err != nil {
			return nil, err
		}
		res, err := s.roundTrip(b, attempt, t.patience)
		if err == nil && res.StatusCode != http.StatusSwitchingProtocols {
			endToEnd(res) // before the pin is bound: Connection could name the field that binds it
		}
		return res, err
	}
	res, err := s.router.send(t)
	if err != nil {
		rec.refused(err)
		rec.report()
		return nil, closing(req, err)
	}
	res.Body = onClose(rec.reported(res), func() {
		t.end()
		_ = closing(req, nil)
	})
	return res, nil
}

// roundTrip sends req to b. The errors of a RoundTripper of the user's own don't say
// whether something was sent. Nothing was if it failed before it had a connection: then
// roundTrip returns a [balancer.Error] that says so. It knows by the hooks of httptrace,
// which net/http's Transport calls. Only a balancer.Transport has p's limits.
func (s *Sticky) roundTrip(b *balancer.Backend, req *http.Request, p balancer.Patience) (*http.Response, error) {
	if own, ok := s.transport.(*balancer.Transport); ok {
		return own.RoundTripWithin(b, req, nil, p)
	}
	var wants, got atomic.Bool
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GetConn: func(string) { wants.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	res, err := s.transport.RoundTrip(req.WithContext(ctx))
	var known *balancer.Error
	var op *net.OpError
	if err != nil && !errors.As(err, &known) && !got.Load() && (wants.Load() || errors.As(err, &op) && op.Op == "dial") {
		err = &balancer.Error{Backend: b.ID(), Err: err}
	}
	return res, err
}

// closing closes req's body, as a RoundTripper always must, and returns err.
func closing(req *http.Request, err error) error {
	if req.Body != nil {
		err = errors.Join(err, req.Body.Close())
	}
	return err
}

// Observe has o told of requests and tunnels, as [Gateway.Observe] does. A request ends
// when its answer's body is closed. Status is that of the error, by [StatusCode], if
// RoundTrip returns one, and Record.ID is always empty.
func (s *Sticky) Observe(o Observer) (stop func()) { return s.observers.add(o) }
