package middleware_test

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/sockets"
	limpet "github.com/limpet-go/limpet/middleware"
)

// Serve accepts connections of the cheap kind, and serves on those of others.
func TestServeSockets(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		wrap func(net.Listener) net.Listener
		want bool
	}{
		"plain":       {func(l net.Listener) net.Listener { return l }, true},
		"of somebody": {func(l net.Listener) net.Listener { return struct{ net.Listener }{l} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gw := newGateway(t, poolOf(t, nil, map[string]*node{"a": newNode(t, "a", nil)}), &limpet.Options{})
			l, err := net.Listen("tcp", "127.0.0.1:0")
			ok(t, err)
			own := make(chan bool, 1)
			server := &http.Server{Handler: gw, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
				_, cheap := c.(*sockets.Conn)
				own <- cheap
				return ctx
			}}
			ctx, cancel := context.WithCancel(t.Context())
			over := make(chan error, 1)
			go func() { over <- gw.Serve(ctx, server, tt.wrap(l), time.Second) }()
			conn, err := net.Dial("tcp", l.Addr().String())
			ok(t, err)
			defer conn.Close()
			for range 3 {
				if res := fetch(t, conn, "/"); res.StatusCode != 200 {
					t.Errorf("%s", res.Status)
				}
			}
			if got := <-own; got != tt.want {
				t.Errorf("a cheap socket: %v, want %v", got, tt.want)
			}
			cancel()
			ok(t, <-over)
		})
	}
}
