package balancer

import (
	"context"
	"net/netip"
)

type backendKey struct{}

// WithBackend returns a context that names the backend that a request with it goes
// to.
func WithBackend(ctx context.Context, b *Backend) context.Context {
	return context.WithValue(ctx, backendKey{}, b)
}

// BackendFromContext returns the backend that [WithBackend] put there, nil if there is
// none. In the request of an answer that a gateway passes on it is the one that
// answered.
func BackendFromContext(ctx context.Context) *Backend {
	b, _ := ctx.Value(backendKey{}).(*Backend)
	return b
}

// A client is the two ends of a client's connection to this process.
type client struct{ from, to netip.AddrPort }

type clientKey struct{}

// WithClient returns a context that names the client a request comes from, and
// the address of this process that it reached: what a [Transport] with
// ProxyProtocol tells backends. A Gateway and a Sticky do it by themselves. A
// port of 0 is one that isn't known; so is the zero value of to.
func WithClient(ctx context.Context, from, to netip.AddrPort) context.Context {
	return context.WithValue(ctx, clientKey{}, client{unmap(from), unmap(to)})
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
