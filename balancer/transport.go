package balancer

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"sync"
	"time"

	"github.com/limpet-go/limpet/balancer/internal/http1"
)

// A Transport reaches backends over HTTP/1.1 and keeps connections to them. The
// zero value is ready; fields must not be changed after the first use. All
// methods are safe for concurrent use.
//
// A Transport doesn't limit the time that a backend takes to answer, since a long poll
// takes half a minute. A request to a backend that hangs ends when [Backend.Lost] closes:
// health checks with a Path see to that.
//
// The goroutine that calls RoundTrip writes the request and reads the answer. Only a
// request with a body is sent by another goroutine, since the backend may answer before the
// body ends. A body of up to 4 KB of which all is there needs none either: it has a method
// Buffered, like that of a [bufio.Reader], which returns the request's ContentLength, and the
// request has a GetBody. An idle connection has neither a goroutine nor a buffer, and a request
// over TCP or a Unix socket that waits for its answer has no buffer.
type Transport struct {
	// TLS is the configuration for https backends. Nil: the default one. An empty
	// ServerName stands for the host of the backend's URL. ALPN offers http/1.1 only.
	TLS *tls.Config

	// Dial opens connections. Network is tcp, and addr a host and a port, or network
	// is unix, and addr a path. Nil: DialContext of a [Dialer].
	//
	// Before a connection is used the Transport asks the kernel whether the backend
	// has closed it or has sent anything. For that the connection should be a
	// [syscall.Conn], or have a method NetConn that returns one. Another one is read
	// for a moment instead. If it supports no read deadline it isn't kept.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	DialTimeout time.Duration // of the dial and the TLS handshake; 0: 2 s
	IdleTimeout time.Duration // until an idle connection is closed, sooner if the backend asks for it in Keep-Alive; 0: 4 s, since Node closes after 5
	MaxIdle     int           // idle connections for each backend; 0: 256

	// ProxyProtocol is the version of the PROXY protocol, 1 or 2, with which each
	// connection begins, before TLS. 0: none. Its header has the client's address,
	// from the context (see [WithClient]). For health checks, and for requests without a
	// client, it says that the connection is this process's own.
	//
	// The header is for the whole connection, so a connection is only kept for
	// requests of the same client address and port. There will be about as many
	// connections to backends as clients have to this process, and the first request
	// on each of them has to dial. Where backends can use the field X-Forwarded-For,
	// that is much cheaper.
	ProxyProtocol int

	clients  sync.Map // from *life to *http1.Client
	canceler http1.Canceler
}

// Validate returns an error if a limit is negative or there is no such version of the
// PROXY protocol. [NewPool] and gateways call it.
func (t *Transport) Validate() error {
	switch {
	case t.DialTimeout < 0:
		return fmt.Errorf("balancer: transport: DialTimeout %v is negative; 0 is the default", t.DialTimeout)
	case t.IdleTimeout < 0:
		return fmt.Errorf("balancer: transport: IdleTimeout %v is negative; 0 is the default", t.IdleTimeout)
	case t.MaxIdle < 0:
		return fmt.Errorf("balancer: transport: MaxIdle %d is negative; 0 is the default, 1 keeps next to none", t.MaxIdle)
	case t.ProxyProtocol < 0 || t.ProxyProtocol > 2:
		return fmt.Errorf("balancer: transport: ProxyProtocol %d: want version 1 or 2, or 0 for none", t.ProxyProtocol)
	}
	return nil
}

// RoundTrip sends a request to the backend in its context (see [WithBackend]). The
// backend's URL takes the place of the request's scheme and host. RoundTrip implements
// [http.RoundTripper]. The body of an answer 101 is an [io.ReadWriteCloser] with a method
// CloseWrite.
//
// When the backend's Lost closes, RoundTrip fails with [ErrLost]. So does reading an
// answer's body that isn't complete yet; it never looks like the end of the body. Errors
// of RoundTrip are of type [*Error], and wrap the context's error if the context has ended.
//
// If the backend had closed the kept connection that was used, the request is sent again,
// once, on a new connection to the same backend. That is done only where HTTP allows it
// (RFC 9110, section 9.2.2). The request must have no body, or a GetBody. And either no
// byte of it was written, or its method is safe, or it has an Idempotency-Key.
//
// With Expect: 100-continue the body isn't read before the backend has asked for it, or
// has said nothing for five seconds. If the backend answers without asking, the body
// isn't sent.
//
// As [http.RoundTripper] allows, the request's body may still be read for a moment when
// RoundTrip has returned an answer, and a Read that waits may outlast the answer. When
// RoundTrip fails it waits for that Read, unless the body is an [Interrupter].
//
// Of the hooks of [net/http/httptrace], those for DNS, connecting and TLS depend
// on Dial; PutIdleConn is not called.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	b := BackendFromContext(req.Context())
	if b == nil {
		closeBody(req)
		return nil, errors.New("balancer: the request's context names no backend, see WithBackend")
	}
	return t.RoundTripTo(b, req, nil)
}

// RoundTripTo is RoundTrip to b, whatever backend is in the request's context. It calls
// informed, unless that is nil, for each informational answer (1xx), as RoundTrip calls a
// Got1xxResponse hook; an error of informed ends the request. RoundTripTo is cheaper than
// a context and a trace for each request.
//
// With Expect: 100-continue informed is called with the 100 before the body is read for
// the first time, so that it can pass the 100 on while nobody reads. When the backend has
// said nothing for five seconds, informed is called with a 100 without a header.
func (t *Transport) RoundTripTo(b *Backend, req *http.Request, informed func(code int, header textproto.MIMEHeader) error) (*http.Response, error) {
	return t.RoundTripWithin(b, req, informed, Patience{})
}

// RoundTripWithin is RoundTripTo with limits for a request that may as well be sent to
// another backend. If b keeps it waiting for longer, the error wraps
// [os.ErrDeadlineExceeded] or [context.DeadlineExceeded], and Sent of [Error] says which
// of the limits it was. A request with a body isn't limited by Begin, nor is one over a
// connection that has no read deadlines.
func (t *Transport) RoundTripWithin(b *Backend, req *http.Request, informed func(code int, header textproto.MIMEHeader) error, p Patience) (*http.Response, error) {
	c, err := t.fit(b, req)
	if err != nil {
		return nil, err
	}
	return c.RoundTrip(req, informed, http1.Patience(p))
}

// fit returns the HTTP client for b, or an error if it can't be asked, for which it closes
// the body of req.
func (t *Transport) fit(b *Backend, req *http.Request) (*http1.Client, error) {
	l := b.life.Load()
	if err := l.over(); err != nil {
		closeBody(req)
		return nil, &Error{Backend: b.id, Err: err}
	}
	if err := t.Validate(); err != nil {
		closeBody(req)
		return nil, &Error{Backend: b.id, Invalid: true, Err: cmp.Or(req.Context().Err(), err)}
	}
	return t.client(b, l), nil
}

// client returns the HTTP client for b during its life l. It makes one if there is none.
func (t *Transport) client(b *Backend, l *life) *http1.Client {
	if c, ok := t.clients.Load(l); ok {
		return c.(*http1.Client)
	}
	o := http1.Origin{
		Scheme: b.origin.Scheme, Host: b.origin.Host, Addr: b.addr,
		Dial:        func(ctx context.Context) (net.Conn, error) { return t.connect(ctx, b) },
		IdleTimeout: cmp.Or(t.IdleTimeout, 4*time.Second),
		MaxIdle:     cmp.Or(t.MaxIdle, 256),
		Life:        l,
		Answered:    b.answers,
		Reads:       &b.reads,
		Error: func(sent, invalid bool, err error) error {
			return &Error{Backend: b.id, Sent: sent, Invalid: invalid, Err: err}
		},
		Canceler: &t.canceler,
	}
	if t.ProxyProtocol != 0 {
		o.Key = func(ctx context.Context) string { return string(proxyHeader(ctx, t.ProxyProtocol)) }
	}
	c := http1.NewClient(o)
	if first, ok := t.clients.LoadOrStore(l, c); ok {
		return first.(*http1.Client)
	}
	context.AfterFunc(l, func() {
		t.clients.Delete(l)
		c.End()
	})
	return c
}

// Connect returns a new connection to the backend, secured if its URL is https. It is meant
// for tunnels: the caller owns the connection, and neither [Backend.Lost] nor
// CloseIdleConnections closes it. Errors are of type [*Error], with Sent false.
func (t *Transport) Connect(ctx context.Context, b *Backend) (net.Conn, error) {
	if err := b.life.Load().over(); err != nil {
		return nil, &Error{Backend: b.id, Err: err}
	}
	if err := t.Validate(); err != nil {
		return nil, &Error{Backend: b.id, Invalid: true, Err: err}
	}
	conn, err := t.connect(ctx, b)
	if err != nil {
		return nil, &Error{Backend: b.id, Err: cmp.Or(ctx.Err(), err)}
	}
	return conn, nil
}

// Release has the requests that are Movable (see [Patience]) and wait for b's answer fail
// with [ErrLost], each if may returns true for it, while b's Lost is open. It is for a
// backend that is Down but not lost by the half rule (see [Backend.Lost]). Tunnels, requests
// that must not be repeated and answers that have begun are left alone.
func (t *Transport) Release(b *Backend, may func() bool) {
	if c, ok := t.clients.Load(b.life.Load()); ok {
		c.(*http1.Client).Release(ErrLost, may)
	}
}

// CloseIdleConnections closes the idle connections to all backends, and none in use.
func (t *Transport) CloseIdleConnections() {
	for _, c := range t.clients.Range {
		c.(*http1.Client).CloseIdle()
	}
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// An Interrupter is the body of a request that allows a Read to outlast its attempt.
//
// A Read of the body may wait for a client that sends nothing while the attempt fails.
// RoundTrip then waits for that Read, since it can't end it. If the body is an
// Interrupter, RoundTrip calls Interrupt and Close instead and returns. The Close of an
// answer's body does the same. It never waits: the Read of a body of another type may
// outlast it. The Transport ignores what the late Read returns, so a body that another
// attempt will read has to keep it. One more Read may begin after Interrupt; what it
// returns is ignored too.
//
// If a Read of an Interrupter returns [http.ErrBodyReadAfterClose], the request ends
// there, and the answer is still read, however long it takes. From a body of another type
// this error fails the request, as all errors but io.EOF do.
type Interrupter interface{ Interrupt() }
