package socketio_test

import (
	"context"
	"errors"
	"net"
	"strings"
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

// mortal returns a client with n idle connections. sever makes the network drop what is sent
// on them, and on all others that there are by then, without a word.
func mortal(t *testing.T, addr string, n int) (client *redis.Client, sever func()) {
	var dead atomic.Pointer[atomic.Bool] // of the connections that are made now
	dead.Store(&atomic.Bool{})
	var dialer net.Dialer
	client = redis.NewClient(&redis.Options{
		Addr: addr, ContextTimeoutEnabled: true, DialerRetries: 1, PoolSize: n + 5,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			return halfOpen{conn, dead.Load()}, err
		},
	})
	t.Cleanup(func() { client.Close() })
	for range n {
		conn := client.Conn() // takes one of its own with the first command
		if err := conn.Ping(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		defer conn.Close() // it idles
	}
	return client, func() { dead.Swap(&atomic.Bool{}).Store(true) }
}

// The network drops all connections of a pool without a word. An Emitter waits in vain
// once, and not once on each connection.
func TestEmitterDeadPool(t *testing.T) {
	t.Parallel()
	client, sever := mortal(t, redistest.Start(t).Addr, 15)
	emitter, err := socketio.NewEmitter(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	sever()
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

// An Emitter waits for a connection while nothing was sent, and sends once.
func TestEmitterWaits(t *testing.T) {
	t.Parallel()
	var dialer net.Dialer
	refusals := 3
	server := redistest.Start(t)
	client := redis.NewClient(&redis.Options{
		Addr: server.Addr, ContextTimeoutEnabled: true, DialerRetries: 1, MaxRetries: -1,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if refusals--; refusals >= 0 { // one dial at a time
				return nil, errors.New("refused")
			}
			return dialer.DialContext(ctx, network, addr)
		},
	})
	defer client.Close()
	for name, adapter := range map[string]socketio.Adapter{"PubSub": socketio.PubSub{}, "Streams": socketio.Streams{}} {
		emitter, err := socketio.NewEmitter(client, adapter)
		if err != nil {
			t.Fatal(err)
		}
		if err := emitter.Emit(t.Context(), "ev"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	stats := server.Client(t).Info(t.Context(), "commandstats").Val()
	for _, command := range []string{"publish", "xadd"} {
		if !strings.Contains(stats, "cmdstat_"+command+":calls=1,") {
			t.Errorf("not one %s in %s", command, stats)
		}
	}
}

// The network drops all connections of a Cluster that only reads a stream.
func TestClusterDeadPool(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client, sever := mortal(t, server.Addr, 15)
	m := newClients()
	var err error
	if m.cluster, err = socketio.NewCluster(client, socketio.Streams{}, &socketio.ClusterOptions{Sockets: m}); err != nil {
		t.Fatal(err)
	}
	m.connect(t, "go", "room")
	run(t, m.cluster)
	emitter, err := socketio.NewEmitter(server.Client(t), socketio.Streams{})
	if err != nil {
		t.Fatal(err)
	}
	arrives := func(event string) {
		began := time.Now()
		for !m.has("go", isEvent(event)) {
			if err := emitter.Emit(patient(t), event); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		// A read may take 1.5 s, and the idle connections 0.5 s.
		took := time.Since(began)
		t.Logf("%q arrives after %v", event, took)
		if took > 6*time.Second {
			t.Errorf("no %q arrived for %v", event, took)
		}
	}
	arrives("before")
	sever()
	arrives("under way") // a read that waited already may get it
	arrives("after")
}
