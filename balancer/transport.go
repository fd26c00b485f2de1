package balancer

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// A Transport reaches backends over HTTP/1.1 and keeps connections to them. The
// zero value is ready; fields must not be changed after the first use.
// All methods are safe for concurrent use.
type Transport struct {
	TLS         *tls.Config                                                       // for https backends; nil: the default. ALPN offers http/1.1 only
	Dial        func(ctx context.Context, network, addr string) (net.Conn, error) // nil: a net.Dialer's DialContext
	DialTimeout time.Duration                                                     // of the dial and the TLS handshake; 0: 2 s
	IdleTimeout time.Duration                                                     // an idle connection is closed after it; 0: 4 s, as Node closes after 5
	MaxIdle     int                                                               // idle connections a backend; 0: 256

	byBackend sync.Map // *Backend to *backendTransport
}

// ErrLost is the [Error.Err] of a request whose backend's [Backend.Lost] closed.
var ErrLost = errors.New("the backend is lost")

// An Error says that a backend could not be asked, or didn't answer to the end.
type Error struct {
	Backend string // its ID
	Sent    bool   // bytes of the request may have gone out
	Err     error
}

// Error names the backend and what was tried.
func (e *Error) Error() string { return "balancer: backend " + e.Backend + ": " + e.Err.Error() }

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

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

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) { panic("TODO") }

// Connect returns a new connection to the backend.
func (t *Transport) Connect(ctx context.Context, b *Backend) (net.Conn, error) { panic("TODO") }

// CloseIdleConnections closes the idle connections to all backends.
func (t *Transport) CloseIdleConnections() {}

func handshake(ctx context.Context, conn net.Conn, b *Backend, config *tls.Config) (net.Conn, error) {
	if config == nil {
		config = &tls.Config{}
	}
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	if config.ServerName == "" {
		config.ServerName = b.url.Hostname()
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secured, nil
}
