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
// It sets no limit to the time a backend takes to answer, since a long poll
// waits for half a minute: what ends a request to a backend that hangs is
// [Backend.Lost], which health checks with a path close.
//
// A request is written and its answer is read by the goroutine that calls
// RoundTrip; only a body is sent by another one, since the backend may answer
// before its end. A connection that is idle has neither goroutine nor buffer.
type Transport struct {
	// TLS is for https backends. Nil: the default. An empty ServerName is the
	// host of the backend's URL. ALPN offers http/1.1 only.
	TLS *tls.Config

	// Dial makes connections: network is tcp, with addr a host and a port, or
	// unix, with addr a path. Nil: DialContext of a [Dialer].
	//
	// Before a connection is used the kernel is asked whether the backend has
	// closed it, or has spoken unasked. A connection of a type of one's own is
	// read for a moment instead, unless it is a [syscall.Conn] or has a method
	// NetConn that returns one. If it can't have a read deadline it isn't kept.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	DialTimeout time.Duration // of the dial and the TLS handshake; 0: 2 s
	IdleTimeout time.Duration // until an idle connection is closed, sooner if the backend said so in Keep-Alive; 0: 4 s, since Node closes after 5
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

	clients  sync.Map // from *life to *http1.Client
	canceler http1.Canceler
}

// Validate refuses negative limits and a version of the PROXY protocol that
// doesn't exist. NewPool calls it, and so does a gateway.
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

// RoundTrip sends a request to the backend that its context names (see
// [WithBackend]), whose URL takes the place of the request's scheme and host. It
// implements [http.RoundTripper]; the body of a 101 answer is an
// io.ReadWriteCloser with CloseWrite.
//
// When the backend's Lost closes, RoundTrip fails with [ErrLost], and so does
// reading the body of an answer that isn't complete yet, which never looks like
// its end. Errors are of type [*Error]; the context's own error is within when
// that has ended. A request that met a kept connection which the backend had
// closed is sent again, once, on a new connection to the same backend where HTTP
// allows it (RFC 9110, section 9.2.2: it can be read again, having no body or a
// GetBody, and either no byte of it was written, or its method is safe or it has
// an Idempotency-Key).
//
// With Expect: 100-continue the body is not read before the backend asks for it,
// or has said nothing for five seconds; if it answers without asking, the body
// isn't sent.
//
// As [http.RoundTripper] allows, the request's body may be read for a moment
// after RoundTrip has returned an answer, and a Read that waits then may outlast the
// answer. When RoundTrip fails it waits for that Read, unless the body is an
// [Interrupter]. A body whose Read returns [http.ErrBodyReadAfterClose], since its
// owner has no more use for it, ends the request there; the answer is still read.
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

// RoundTripTo is RoundTrip to b, whatever backend the request's context names. The
// informational answers (1xx) are told to informed, if it isn't nil, as to a
// Got1xxResponse hook: its error ends the request. It is cheaper than a context and
// a trace for each request.
//
// With Expect: 100-continue informed is told of the 100 before the body is read for
// the first time, so that it can pass the 100 on without anybody reading meanwhile.
// That the backend has said nothing for five seconds is told as a 100 without a header.
func (t *Transport) RoundTripTo(b *Backend, req *http.Request, informed func(code int, header textproto.MIMEHeader) error) (*http.Response, error) {
	l := b.life.Load()
	err := l.over()
	invalid := false
	if err == nil {
		err = t.Validate()
		invalid = err != nil
	}
	if err != nil {
		closeBody(req)
		return nil, &Error{Backend: b.id, Invalid: invalid, Err: err}
	}
	return t.client(b, l).RoundTrip(req, informed)
}

// client returns the one of b, whose life at this moment is l.
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
		Answered:    func() { b.answered.Store(time.Now().UnixNano()) },
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

// Connect returns a new connection to the backend, secured if its URL is https,
// which the Transport forgets: for tunnels. Errors are of type [*Error], with
// Sent false.
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

// CloseIdleConnections closes the idle connections to all backends. Those in use
// are left alone.
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

// An Interrupter is the body of a request that doesn't mind a late Read. An attempt
// may fail, or its answer be read and closed, while a Read of the request's body
// waits for a client that sends nothing; RoundTrip and the answer's Close would have
// to wait for it. With a body that is an Interrupter they don't: they call Interrupt
// and Close, and leave that Read to the body. What it brings is lost to this attempt,
// so that a body which another attempt will read has to keep it. One more Read may
// still begin; the Transport does nothing with what it brings either.
type Interrupter interface{ Interrupt() }
