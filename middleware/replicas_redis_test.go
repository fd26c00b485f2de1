//go:build unix

package middleware_test

import (
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/redistest"
	limpet "github.com/limpet-go/limpet/middleware"
)

// Replicas agree over a real Redis, also on what was decided while it was gone.
func TestReplicasOnRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	start := func() *balancer.Pool {
		pool := balancer.Static("a=http://127.0.0.1:1", "b=http://127.0.0.1:1")
		runGateway(t, newGateway(t, pool, &limpet.Options{Bus: &bus.Redis{Client: server.Client(t)}, Logger: slog.New(slog.DiscardHandler)}))
		return pool
	}
	one, other := start(), start()
	ok(t, one.Drain("a", time.Hour))
	await(t, other, "a", draining)
	ok(t, other.Off("b"))
	await(t, one, "b", down)
	late := start()
	await(t, late, "b", down)
	await(t, late, "a", draining) // told in a message of its own
	if got, want := late.Get("a").Wish(), one.Get("a").Wish(); !got.Equal(want) {
		t.Errorf("a late replica has %+v, want %+v", got, want)
	}

	server.Signal(t, syscall.SIGKILL)
	server.End(t)
	ok(t, one.Undrain("b"))
	ok(t, other.Off("a"))
	server.Restart(t)
	for _, pool := range []*balancer.Pool{one, other, late} {
		await(t, pool, "b", up)
		await(t, pool, "a", down)
	}
}
