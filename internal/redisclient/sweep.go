package redisclient

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Sweeper drops the idle connections of a client that have died.
//
// When the network drops a connection without a word, as a firewall or a load balancer
// does that was restarted, it has mostly dropped all of them. go-redis finds out about each
// one only when a command has waited on it in vain: a caller with fifty of them would fail
// fifty times. So a caller that has waited in vain once calls Failed. The zero value is
// ready for use.
type Sweeper struct{ sweeping atomic.Bool }

const (
	// doubtful is how long Redis may take to answer before idle connections are doubted, too.
	doubtful = 250 * time.Millisecond
	// sweepLimit is how long an idle connection may take to answer.
	sweepLimit = 500 * time.Millisecond
	// grabLimit is how long Sweep waits until it has got hold of them.
	grabLimit = sweepLimit / 2
	// sweepPause is the pause before another sweep: a Redis that doesn't answer, and all
	// who fail for it, must not cause one after the other.
	sweepPause = time.Second
)

// Failed looks after a client when a command has failed that was sent at a time, and had a
// limit: it calls Reload, and Sweep unless the command has failed soon, which says nothing
// about the idle connections.
func (s *Sweeper) Failed(ctx context.Context, client redis.UniversalClient, began time.Time, limit time.Duration) {
	Reload(client)
	if time.Since(began) >= min(limit, doubtful) {
		s.Sweep(ctx, client)
	}
}

// Sweep sends a PING on each idle connection of the client, on all of them at once.
// go-redis closes those on which no answer comes within half a second. Sweep doesn't wait
// for that, but until these connections are in use, or ctx ends: other commands then get
// fresh ones, or wait. A call within a second of the last sweep does nothing.
func (s *Sweeper) Sweep(ctx context.Context, client redis.UniversalClient) {
	if s.sweeping.Swap(true) {
		return
	}
	grabbed := make(chan struct{})
	go func() { // ends within sweepLimit
		defer time.AfterFunc(sweepPause, func() { s.sweeping.Store(false) })
		ctx, cancel := context.WithTimeout(context.Background(), sweepLimit)
		defer cancel()
		var pings, grabs sync.WaitGroup
		for _, node := range nodes(ctx, client) {
			sweep(ctx, node, &pings, &grabs)
		}
		grabs.Wait()
		close(grabbed)
		pings.Wait()
	}()
	select {
	case <-grabbed:
	case <-time.After(grabLimit):
	case <-ctx.Done():
	}
}

// pooled is a client of one server.
type pooled interface {
	Process(ctx context.Context, cmd redis.Cmder) error
	Pipeline() redis.Pipeliner
	PoolStats() *redis.PoolStats
}

// nodes returns the clients of the servers that a client knows.
func nodes(ctx context.Context, client redis.UniversalClient) (nodes []pooled) {
	switch c := client.(type) {
	case *redis.ClusterClient:
		var mu sync.Mutex
		_ = c.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			nodes = append(nodes, node)
			return nil
		})
	case pooled:
		nodes = append(nodes, c)
	}
	return nodes
}

// sweep starts the PINGs on the idle connections of one server: those for commands and
// those for pipelines. grabs are done when each PING has got a connection.
func sweep(ctx context.Context, client pooled, pings, grabs *sync.WaitGroup) {
	start := func(idle uint32, send func(ctx context.Context, ping redis.Cmder)) {
		for range idle {
			grabs.Add(1)
			grab := &grab{done: sync.OnceFunc(grabs.Done)}
			pings.Go(func() {
				defer grab.done()
				send(ctx, Once{redis.NewCmd(ctx, "ping", grab)})
			})
		}
	}
	stats := client.PoolStats()
	start(stats.IdleConns, func(ctx context.Context, ping redis.Cmder) {
		_ = client.Process(ctx, ping)
	})
	if stats.PipelineStats == nil {
		return
	}
	start(stats.PipelineStats.IdleConns, func(ctx context.Context, ping redis.Cmder) {
		pipe := client.Pipeline()
		_ = pipe.Process(ctx, ping)
		_, _ = pipe.Exec(ctx)
	})
}

// grab is the argument of a PING.
type grab struct{ done func() }

// MarshalBinary is called by go-redis when it writes the PING to a connection.
func (g *grab) MarshalBinary() ([]byte, error) {
	g.done()
	return []byte("sweep"), nil
}
