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

// BackendFromContext returns the backend that [WithBackend] has put into the context, nil
// if there is none. In the context of an answer's request (res.Request.Context()) it is
// the backend that has answered.
func BackendFromContext(ctx context.Context) *Backend {
	b, _ := ctx.Value(backendKey{}).(*Backend)
	return b
}

// A client holds the addresses of both ends of a client's connection to this process.
type client struct{ from, to netip.AddrPort }

type clientKey struct{}

// WithClient returns a context with the address from which a client has sent a request
// and the address of this process that it has reached. A [Transport] with ProxyProtocol
// sends both to the backend. A Gateway and a Sticky call WithClient themselves. A port of
// 0, or a zero to, means that it isn't known.
func WithClient(ctx context.Context, from, to netip.AddrPort) context.Context {
	return context.WithValue(ctx, clientKey{}, client{unmap(from), unmap(to)})
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
