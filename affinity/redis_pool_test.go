package affinity_test

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/internal/redistest"
)

// halfOpen is a connection whose network drops everything once it is dead.
type halfOpen struct {
	net.Conn
	dead *atomic.Bool
}

func (c halfOpen) Write(b []byte) (int, error) {
	if c.dead.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// The network drops all connections of a pool without a word. That costs a few calls, and not
// one for each connection.
func TestRedisDeadPool(t *testing.T) {
	t.Parallel()
	const idle = 30
	var severed, dead, never atomic.Bool
	var dialer net.Dialer
	client := redis.NewClient(&redis.Options{
		Addr: redistest.Start(t).Addr, ContextTimeoutEnabled: true, DialerRetries: 1, PoolSize: idle + 5,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if severed.Load() {
				return halfOpen{conn, &never}, err
			}
			return halfOpen{conn, &dead}, err
		},
	})
	defer client.Close()
	var failed atomic.Int64
	client.AddHook(hook(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
		err := next(ctx, cmd)
		if err != nil && cmd.Name() != "ping" {
			failed.Add(1)
		}
		return err
	}))
	func() {
		for range idle {
			conn := client.Conn() // takes one of its own with the first command
			if err := conn.Ping(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			defer conn.Close() // it idles
		}
	}()
	store := &affinity.Redis{Client: client, Size: -1, Logger: slog.New(slog.DiscardHandler)}
	if _, err := store.Load(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	failed.Store(0)
	severed.Store(true)
	dead.Store(true)
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err := store.Load(t.Context(), "a"); err == nil {
			break
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal("it doesn't recover")
		}
	}
	if n := failed.Load(); n > idle/2 { // the machine may be busy
		t.Errorf("%d calls have failed for %d connections", n, idle)
	}
}
