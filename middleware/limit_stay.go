package middleware

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A stay is what a Limit counts: a request in flight, or a tunnel.
type stay struct {
	limit  *Limit
	shard  *limitShard // nil if the client isn't counted
	client *limitClient
	tunnel bool
}

// end is called once.
func (s *stay) end() {
	if s.tunnel {
		s.limit.tunnels.Add(-1)
	}
	if s.shard != nil {
		s.shard.leave(s.client, time.Since(s.limit.began))
	}
}

// A stayRef is the stay of a handshake. It ends when its handler has returned and everybody
// who has called HoldCount has released it.
type stayRef struct {
	stay
	addr  netip.Addr
	now   time.Duration
	outer *stayRef // of another Limit in front
	refs  atomic.Int32
}

func (s *stayRef) release() {
	if s.refs.Add(-1) == 0 {
		s.end()
	}
}

type stayKey struct{}

// HoldCount has each [Limit] in front count a WebSocket until release is called, and not only
// until the handler returns. It is for handlers that take a connection over and return before
// that is closed. A [Gateway] calls it itself. ctx is the context of the request; the handler
// must not have returned yet. Calls of release after the first do nothing.
func HoldCount(ctx context.Context) (release func()) {
	if release = holdCount(ctx); release == nil {
		return func() {}
	}
	return release
}

// holdCount is HoldCount, and returns nil if there is no Limit in front.
func holdCount(ctx context.Context) (release func()) {
	innermost, _ := ctx.Value(stayKey{}).(*stayRef)
	if innermost == nil {
		return nil
	}
	for s := innermost; s != nil; s = s.outer {
		s.refs.Add(1)
	}
	return sync.OnceFunc(func() {
		for s := innermost; s != nil; s = s.outer {
			s.release()
		}
	})
}
