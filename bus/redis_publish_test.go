package bus_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/redistest"
)

// A message that can't be sent, since there is no connection, waits for one.
func TestRedisPublishWaits(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	network := newProxy(t, server.Addr)
	for _, tt := range []struct {
		name       string
		away, back func()
	}{
		{"connections are cut at once", func() { network.refuse(true); network.cut() }, func() { network.refuse(false) }},
		{"connections hang", func() { network.hole(true); network.cut() }, func() { network.hole(false) }},
		{"Redis is restarted", func() { server.Signal(t, syscall.SIGTERM); server.End(t); network.cut() }, func() { server.Restart(t) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &bus.Redis{Client: network.client(t), Timeout: patience}
			if err := b.Publish(t.Context(), "a", nil); err != nil {
				t.Fatal(err)
			}
			tt.away()
			await(t, "the end of all connections", func() bool {
				network.mu.Lock()
				defer network.mu.Unlock()
				return len(network.pairs) == 0
			})
			published := make(chan error)
			go func() { published <- b.Publish(t.Context(), "a", nil) }()
			select {
			case err := <-published:
				t.Errorf("Redis is away, but Publish returned %v", err)
				tt.back()
			case <-time.After(300 * time.Millisecond):
				tt.back()
				if err := <-published; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A message that may have reached Redis isn't sent again.
func TestRedisPublishesOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	network := newProxy(t, server.Addr)
	direct := &bus.Redis{Client: server.Client(t), Timeout: patience}
	sub := listen(t, direct, "a")
	b := &bus.Redis{Client: network.client(t), Timeout: 600 * time.Millisecond}
	await(t, "a connection", func() bool { return b.Publish(t.Context(), "other", nil) == nil })
	network.hole(true)
	began := time.Now()
	if err := b.Publish(t.Context(), "a", []byte("1")); err == nil || errors.Is(err, bus.ErrClosed) {
		t.Errorf("Publish: %v", err)
	}
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("Publish has waited for %v only", took)
	}
	network.hole(false)
	sub.await(t, 1)
	if err := direct.Publish(t.Context(), "a", []byte("2")); err != nil {
		t.Fatal(err)
	}
	sub.await(t, 2)
	sub.check(t) // fails if the first one came twice
}

// Waiting doesn't help against a wrong password or a client that is closed.
func TestPublishFailsAtOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "secret")
	for _, tt := range []struct {
		name     string
		password string
		closed   bool
	}{
		{"no password", "", false},
		{"wrong password", "wrong", false},
		{"closed client", "secret", true},
	} {
		client := redis.NewClient(&redis.Options{
			Addr: server.Addr, Password: tt.password, ContextTimeoutEnabled: true, DialerRetries: 1,
		})
		if tt.closed {
			client.Close()
		} else {
			t.Cleanup(func() { client.Close() })
		}
		for name, b := range map[string]bus.Bus{
			"Redis":   &bus.Redis{Client: client, Timeout: patience},
			"Streams": &bus.Streams{Client: client, Timeout: patience},
		} {
			t.Run(tt.name+", "+name, func(t *testing.T) {
				began := time.Now()
				err := b.Publish(t.Context(), "a", nil)
				if took := time.Since(began); err == nil || took > patience/2 {
					t.Errorf("%v after %v", err, took)
				}
			})
		}
	}
}
