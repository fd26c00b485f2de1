package affinity

import (
	"sync/atomic"
	"time"
)

// RedisStats are figures of one [Redis] of this process. The counts begin when it is
// first used.
type RedisStats struct {
	Memory  int64 // the Loads that were answered from memory without asking Redis
	Calls   int64 // the calls to Redis
	Errors  int64 // of these, the ones that failed or took longer than Timeout
	Skipped int64 // the calls that weren't made, since Redis had failed and was left alone
	Open    bool  // Redis fails and is left alone; in a Cluster, one of the primaries that this replica needs
}

// redisCounts has what RedisStats counts.
type redisCounts struct {
	memory, calls, errors, skipped atomic.Int64
}

// Stats returns the figures of this Redis. It may be called concurrently, and asks Redis
// nothing.
func (r *Redis) Stats() RedisStats {
	open := r.node.open()
	r.nodes.Range(func(_, n any) bool {
		open = open || n.(*redisNode).failing()
		return !open
	})
	c := &r.counts
	return RedisStats{
		Memory: c.memory.Load(), Calls: c.calls.Load(), Errors: c.errors.Load(), Skipped: c.skipped.Load(), Open: open,
	}
}

// failing tells whether calls are kept away from a primary of a Cluster. A primary that was
// replaced after it had failed gets no calls any more, so its circuit stays open for ever:
// it doesn't count once nothing has asked it for a minute.
func (n *redisNode) failing() bool {
	return n.open() && time.Since(n.since)-time.Duration(n.next.Load()) < time.Minute
}
