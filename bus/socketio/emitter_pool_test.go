package socketio_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus/socketio"
	"github.com/limpet-go/limpet/internal/redistest"
)

// halfOpen is a connection to Redis of which the network drops everything once it is dead.
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

// The network drops all connections of a pool without a word. An Emitter waits in vain
// once, and not once on each connection.
func TestEmitterDeadPool(t *testing.T) {
	t.Parallel()
	var dead atomic.Pointer[atomic.Bool] // of the connections that are made now
	dead.Store(&atomic.Bool{})
	var dialer net.Dialer
	client := redis.NewClient(&redis.Options{
		Addr: redistest.Start(t).Addr, ContextTimeoutEnabled: true, DialerRetries: 1, PoolSize: 20,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			return halfOpen{conn, dead.Load()}, err
		},
	})
	defer client.Close()
	var conns []*redis.Conn
	for range 15 {
		conn := client.Conn() // takes one of its own with the first command
		if err := conn.Ping(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		conn.Close() // it idles
	}
	emitter, err := socketio.NewEmitter(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	dead.Swap(&atomic.Bool{}).Store(true)
	failed := 0
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		if err := emitter.Emit(ctx, "ev"); err != nil {
			failed++
		}
		cancel()
	}
	if failed > 1 {
		t.Errorf("%d of 10 messages were not sent", failed)
	}
}
