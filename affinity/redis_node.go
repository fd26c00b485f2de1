package affinity

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
)

// A redisNode is a Redis server with a circuit of its own. In a Cluster each
// primary has one: the failures of one must not keep calls away from the
// others, and their successes must not hide that it fails.
type redisNode struct {
	circuit
	addr string // "" for the only server, or the Cluster as a whole
}

var errCircuitOpen = errors.New("it has failed and is left alone for a moment")

// guarded calls f with a context that ends after the time limit, unless the
// circuit of the node that has key is open.
func (r *Redis) guarded(ctx context.Context, key string, f func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, r.conf.timeout)
	defer cancel()
	cluster, ok := r.conf.client.(*redis.ClusterClient)
	if !ok {
		return r.attempt(ctx, &r.node, func() error { return f(limited) })
	}
	var primary *redis.Client
	err := r.attempt(ctx, &r.node, func() (err error) { // asks the Cluster if its nodes aren't known yet
		primary, err = cluster.MasterForKey(limited, key)
		return err
	})
	if err != nil {
		return err
	}
	addr := primary.Options().Addr
	n, ok := r.nodes.Load(addr)
	if !ok {
		n, _ = r.nodes.LoadOrStore(addr, &redisNode{addr: addr, circuit: circuit{since: r.node.since}})
	}
	err = r.attempt(ctx, n.(*redisNode), func() error { return f(limited) })
	if err != nil && err != errCircuitOpen {
		// Another node may have taken over. By itself, go-redis would take up
		// to a minute to find out.
		cluster.ReloadState(ctx)
	}
	return err
}

// attempt calls f unless the circuit of n is open. It tells the circuit the
// result, and logs when the circuit opens or closes.
func (r *Redis) attempt(ctx context.Context, n *redisNode, f func() error) error {
	if !n.enter(r.conf.timeout) {
		return errCircuitOpen
	}
	began := time.Now()
	err := f()
	switch {
	case err == nil:
		if n.succeed() {
			r.conf.log.Info("affinity: Redis answers again", n.attr()...)
		}
	case ctx.Err() != nil:
		n.abandon()
	default:
		if n.fail() {
			r.conf.log.Warn("affinity: Redis fails, pins are kept in memory meanwhile", append(n.attr(), "err", err)...)
		}
		if n.open() {
			// Other idle connections may be dead, too, and each would cost a probe. Nobody
			// waits for that.
			r.sweeper.Failed(redisclient.Ended, r.conf.client, began, r.conf.timeout)
		}
	}
	return err
}

// attr returns the attributes of n for log messages.
func (n *redisNode) attr() []any {
	if n.addr == "" {
		return nil
	}
	return []any{"node", n.addr}
}
