package bus_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/redistest"
)

// The connection on which Redis has answered is the one that replaces a dead one. A third
// one might not be answered: it would have to be made in the same trouble.
func TestRedisDeadConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	network := newProxy(t, redistest.Start(t).Addr)
	var dials atomic.Int32
	client := redis.NewClient(&redis.Options{
		ContextTimeoutEnabled: true, DialerRetries: 1,
		Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, "tcp", network.listener.Addr().String())
		},
	})
	t.Cleanup(func() { client.Close() })
	b := &bus.Redis{Client: client, Timeout: patience}
	sub, err := b.Subscribe(t.Context(), "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	before := dials.Load()
	network.orphan()
	var gap *bus.Gap
	if _, err := sub.Next(t.Context()); !errors.As(err, &gap) || len(gap.Topics) != 2 {
		t.Errorf("got %v", err)
	}
	if n := dials.Load() - before; n != 1 {
		t.Errorf("%d connections were made to replace one", n)
	}
}
