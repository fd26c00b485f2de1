package affinity

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
)

// A redisNode is a server with a circuit of its own: in a Cluster, a node that
// is gone must not keep calls from the others, nor their success hide that it is.
type redisNode struct {
	circuit
	addr string // "" if there is only one
}

var errCircuitOpen = errors.New("it has failed and is left alone for a moment")

// guarded calls f within the time limit, if the circuit of the node that has
// key lets it.
func (r *Redis) guarded(ctx context.Context, key string, f func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, r.conf.timeout)
	defer cancel()
	cluster, ok := r.conf.client.(*redis.ClusterClient)
	if !ok {
		return r.attempt(ctx, &r.node, func() error { return f(limited) })
	}
	var primary *redis.Client
	err := r.attempt(ctx, &r.node, func() (err error) { // asks, as long as nothing is known of the Cluster
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
		// Another node may have taken over. By itself go-redis would find out
		// within a minute only.
		cluster.ReloadState(ctx)
	}
	return err
}

// attempt calls f if the node's circuit lets it, and notes what came of it.
func (r *Redis) attempt(ctx context.Context, n *redisNode, f func() error) error {
	if !n.enter(r.conf.timeout) {
		return errCircuitOpen
	}
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
	}
	return err
}

// attr returns what logs say of the node.
func (n *redisNode) attr() []any {
	if n.addr == "" {
		return nil
	}
	return []any{"node", n.addr}
}
