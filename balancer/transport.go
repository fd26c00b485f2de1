package balancer

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A Transport reaches backends over HTTP/1.1 and keeps connections to them. The
// zero value is ready; fields must not be changed after the first use. All
// methods are safe for concurrent use.
//
// It sets no limit to the time a backend takes to answer, since a long poll
// waits for half a minute: what ends a request to a backend that hangs is
// [Backend.Lost], which health checks with a path close.
type Transport struct {
	// TLS is for https backends. Nil: the default. An empty ServerName is the
	// host of the backend's URL. ALPN offers http/1.1 only.
	TLS *tls.Config

	// Dial makes connections: network is tcp, with addr a host and a port, or
	// unix, with addr a path. Nil: DialContext of a [Dialer].
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	DialTimeout time.Duration // of the dial and the TLS handshake; 0: 2 s
	IdleTimeout time.Duration // until an idle connection is closed; 0: 4 s, since Node closes after 5
	MaxIdle     int           // idle connections a backend; 0: 256

	// ProxyProtocol is the version, 1 or 2, of the PROXY protocol in which each
	// connection begins, before TLS: it tells the backend the client's address,
	// from the context (see [WithClient]). Health checks, and requests without a
	// client, are told as this process's own. 0: none.
	//
	// The header is for the whole connection, so a connection is kept for the
	// requests of one client address and port only. The cost: about as many
	// connections to backends as clients have to this process, and a dial for
	// the first request on each of them. Where the field X-Forwarded-For does,
	// it is much cheaper.
	ProxyProtocol int

	routes sync.Map // from *Backend to *route
}

// A route is what a Transport keeps for one backend.
type route struct {
	http.Transport
	life atomic.Pointer[life] // at whose end the idle connections are closed
}

type backendKey struct{}

// NewContext returns a context that names the backend that a request with it goes to.
func NewContext(ctx context.Context, b *Backend) context.Context {
	return context.WithValue(ctx, backendKey{}, b)
}

// FromContext returns the backend that [NewContext] put there, nil if there is none.
func FromContext(ctx context.Context) *Backend {
	b, _ := ctx.Value(backendKey{}).(*Backend)
	return b
}

// RoundTrip sends a request to the backend that its context names (see
// [NewContext]), whose URL takes the place of the request's scheme and host. It
// implements [http.RoundTripper]; the body of a 101 answer is an
// io.ReadWriteCloser with CloseWrite.
//
// When the backend's Lost closes, RoundTrip fails with [ErrLost], and so does
// reading the body of an answer that isn't complete yet, which never looks like
// its end. Errors are of type [*Error]; the context's own error is within when
// that has ended. A request that met a kept connection which the backend had
// closed is sent again on another connection to the same backend where HTTP
// allows it (RFC 9110, section 9.2.2: it has no body and an idempotent method,
// or no byte of it was written and it has no body or a GetBody).
//
// As [http.RoundTripper] allows, the request's body may be read for a moment
// after RoundTrip has returned, until it is closed.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	b := FromContext(req.Context())
	if b == nil {
		closeBody(req)
		return nil, errors.New("balancer: the request's context names no backend, see NewContext")
	}
	l := b.life.Load()
	if l.Err() != nil {
		closeBody(req)
		return nil, &Error{Backend: b.id, Err: ErrLost}
	}
	for {
		res, err := t.send(req, b, l)
		if err == nil {
			return res, nil
		}
		// net/http itself sends a request again that met a kept connection which
		// was closed, but a POST only sometimes, though nothing was written.
		if !err.stale {
			return nil, err
		}
		if req = rewound(req); req == nil {
			return nil, err
		}
	}
}

// rewound returns req as it was before it was sent, or nil.
func rewound(req *http.Request) *http.Request {
	if req.Body == nil || req.Body == http.NoBody {
		return req
	}
	if req.GetBody == nil {
		return nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil
	}
	again := req.WithContext(req.Context())
	again.Body = body
	return again
}

// send is one attempt of RoundTrip's.
func (t *Transport) send(req *http.Request, b *Backend, l *life) (*http.Response, *Error) {
	c := newCall(req, b, l)
	out := req.WithContext(c.traced())
	url := *req.URL
	url.Scheme, url.Host = b.origin.Scheme, b.origin.Host
	if t.ProxyProtocol != 0 {
		// net/http keeps connections by the URL's host: here by what was said
		// at their beginning. Nobody else reads it.
		out.Host = cmp.Or(out.Host, url.Host)
		url.Host = hex.EncodeToString(proxyHeader(req.Context(), t.ProxyProtocol))
	}
	out.URL = &url
	res, err := t.route(b, l).RoundTrip(out)
	if err != nil {
		return nil, c.failed(err)
	}
	b.heard.Store(time.Now().UnixNano())
	res.Request = req
	res.Body = c.body(res)
	return res, nil
}

// Connect returns a new connection to the backend, secured if its URL is https,
// which the Transport forgets: for tunnels. Errors are of type [*Error], with
// Sent false.
func (t *Transport) Connect(ctx context.Context, b *Backend) (net.Conn, error) {
	if b.lost() {
		return nil, &Error{Backend: b.id, Err: ErrLost}
	}
	conn, err := t.connect(ctx, b)
	if err != nil {
		return nil, &Error{Backend: b.id, Err: cmp.Or(ctx.Err(), err)}
	}
	return conn, nil
}

// CloseIdleConnections closes the idle connections to all backends. Those in use
// are left alone.
func (t *Transport) CloseIdleConnections() {
	for _, r := range t.routes.Range {
		r.(*route).CloseIdleConnections()
	}
}

// route returns what the Transport keeps for b, whose life at this moment is l.
func (t *Transport) route(b *Backend, l *life) *route {
	v, ok := t.routes.Load(b)
	if !ok {
		if v, ok = t.routes.LoadOrStore(b, t.newRoute(b)); !ok {
			context.AfterFunc(b.gone, func() { t.routes.Delete(b) })
		}
	}
	r := v.(*route)
	if old := r.life.Load(); old != l && r.life.CompareAndSwap(old, l) {
		context.AfterFunc(l, r.CloseIdleConnections)
	}
	return r
}

func (t *Transport) newRoute(b *Backend) *route {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := t.connect(ctx, b)
		if err != nil {
			return nil, err
		}
		return &conn{Conn: c}, nil
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &route{Transport: http.Transport{
		DialContext:            dial,
		DialTLSContext:         dial,
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConns:           cmp.Or(t.MaxIdle, 256),
		MaxIdleConnsPerHost:    cmp.Or(t.MaxIdle, 256), // a host is all of the backend, but with ProxyProtocol
		IdleConnTimeout:        cmp.Or(t.IdleTimeout, 4*time.Second),
		MaxResponseHeaderBytes: 1 << 20,
		// How long a backend may take to say whether it wants a body is not
		// ours to judge, but one that knows nothing of Expect never says.
		ExpectContinueTimeout: 5 * time.Second,
	}}
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
