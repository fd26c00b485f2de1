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
)

// Sticky is an http.RoundTripper that brings picking, affinity and failover to a
// proxy of the user's own:
//
//	proxy := &httputil.ReverseProxy{
//		Rewrite:   func(r *httputil.ProxyRequest) { r.SetXForwarded() },
//		Transport: &limpet.Sticky{Pool: pool},
//	}
//
// Sticky judges the client by the request that it gets. Behind a load balancer,
// ReverseProxy has stripped what that said about the client by then, and Rewrite
// must put it back for ClientIP to read:
//
//	r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
//	r.SetXForwarded()
//	r.Out.Header["X-Forwarded-Proto"] = r.In.Header["X-Forwarded-Proto"]
//
// The scheme and host that the proxy put into the URL are replaced by the
// backend's. A WebSocket's 101 passes as well; the tunnel is then the proxy's
// business: it isn't closed when its backend goes Down, as the Gateway's are.
//
// The fields mean what they mean in Options and are read at the first request.
// RoundTrip may be called concurrently.
type Sticky struct {
	Pool      *balancer.Pool    // needed
	Affinity  affinity.Affinity // nil: an affinity.Cookie
	Transport http.RoundTripper // nil: the pool's balancer.Transport
	ClientIP  ClientIP
	Gone      Gone
	WaitFor   time.Duration
	Retry     Retry
	MaxBody   int64
	PinHeader string
	Trace     *Trace
	Logger    *slog.Logger

	once      sync.Once
	router    *router
	transport http.RoundTripper
	err       error
}

func (s *Sticky) start() {
	s.router, s.err = newRouter(s.Pool, Options{
		Affinity: s.Affinity, ClientIP: s.ClientIP, Gone: s.Gone, WaitFor: s.WaitFor,
		Retry: s.Retry, MaxBody: s.MaxBody, PinHeader: s.PinHeader, Trace: s.Trace, Logger: s.Logger,
	})
	if s.transport = s.Transport; s.transport == nil && s.err == nil {
		s.transport = s.Pool.Transport()
	}
	if s.err == nil {
		s.err = validate(s.transport)
	}
}

// RoundTrip sends req to the client's backend and returns its answer, with the
// affinity's mark on it. Its errors are those of the last attempt; StatusCode
// says which status they deserve. A wrong setting is an error of every call.
func (s *Sticky) RoundTrip(req *http.Request) (*http.Response, error) {
	s.once.Do(s.start)
	if s.err != nil {
		return nil, closing(req, s.err)
	}
	if opaque := req.URL.Opaque; opaque != "" && opaque[0] != '/' {
		// ReverseProxy leaves it as a client wrote it (x:http://host/admin).
		return nil, closing(req, fmt.Errorf("%w: the target is no path", errMalformed))
	}
	t := &trip{in: req, pin: s.router.find(req)}
	out := req.Clone(s.ClientIP.withClient(req, s.transport))
	s.router.rewrite(out, t.pin)
	t.body = newReplay(s.router, req, out)
	t.try = func(b *balancer.Backend) (*http.Response, error) {
		attempt, err := t.request(out, b)
		if err != nil {
			return nil, err
		}
		res, err := s.roundTrip(b, attempt)
		if err == nil && res.StatusCode != http.StatusSwitchingProtocols {
			endToEnd(res) // before the pin is bound, which a Connection field could name
		}
		return res, err
	}
	res, err := s.router.send(t)
	if err != nil {
		return nil, closing(req, err)
	}
	res.Body = onClose(res.Body, func() {
		t.end()
		_ = closing(req, nil)
	})
	return res, nil
}

// roundTrip sends req to b. A RoundTripper of the user's own may fail before it has
// a connection, for whatever reason: then nothing was sent. If it traces what it
// does, as net/http's, it tells so.
func (s *Sticky) roundTrip(b *balancer.Backend, req *http.Request) (*http.Response, error) {
	if _, own := s.transport.(*balancer.Transport); own {
		return s.transport.RoundTrip(req)
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

// closing closes req's body, which a RoundTripper owes its caller, and returns err.
func closing(req *http.Request, err error) error {
	if req.Body != nil {
		err = errors.Join(err, req.Body.Close())
	}
	return err
}
