package middleware

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
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
// The scheme and host that the proxy put into the URL are replaced by the
// backend's. A WebSocket's 101 passes as well; the tunnel is then the proxy's
// business: it isn't closed when its backend goes Down, as the Gateway's are.
//
// The fields mean what they mean in Options and are read at the first request.
// RoundTrip may be called concurrently.
type Sticky struct {
	Pool      *balancer.Pool    // needed
	Affinity  affinity.Affinity // nil: an affinity.Cookie
	Transport http.RoundTripper // nil: a balancer.Transport
	ClientIP  ClientIP
	Gone      Gone
	WaitFor   time.Duration
	Retry     Retry
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
		Retry: s.Retry, Trace: s.Trace, Logger: s.Logger,
	})
	if s.transport = s.Transport; s.transport == nil {
		s.transport = &balancer.Transport{}
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
	pin := s.router.find(req)
	if res := s.router.goneAnswer(req, pin); res != nil {
		return res, closing(req, nil)
	}
	out := req.Clone(req.Context())
	s.router.rewrite(out, pin)

	t := &trip{in: req, pin: pin}
	if req.Body != nil && req.Body != http.NoBody {
		t.body = newReplay(req.Body, s.router.retry.Body)
		out.GetBody = t.body.open
	}
	t.try = func(b *balancer.Backend) (*http.Response, error) {
		attempt := out.WithContext(balancer.NewContext(out.Context(), b))
		u := *out.URL
		u.Scheme, u.Host = b.URL().Scheme, b.URL().Host
		attempt.URL = &u
		if t.body != nil {
			var err error
			if attempt.Body, err = t.body.open(); err != nil {
				return nil, err
			}
		}
		return s.transport.RoundTrip(attempt)
	}
	res, err := s.router.send(t)
	if err != nil {
		return nil, closing(req, err)
	}
	res.Body = endingBody(res.Body, func() {
		t.end()
		_ = closing(req, nil)
	})
	return res, nil
}

// closing closes req's body, which a RoundTripper owes its caller, and returns err.
func closing(req *http.Request, err error) error {
	if req.Body != nil {
		err = errors.Join(err, req.Body.Close())
	}
	return err
}

// endingBody calls end when the body is closed. The body of a 101 can be written
// too, and stays so.
func endingBody(body io.ReadCloser, end func()) io.ReadCloser {
	ended := endingReader{ReadCloser: body, end: sync.OnceFunc(end)}
	if w, ok := body.(io.Writer); ok {
		return struct {
			endingReader
			io.Writer
		}{ended, w}
	}
	return ended
}

type endingReader struct {
	io.ReadCloser
	end func()
}

func (b endingReader) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}
