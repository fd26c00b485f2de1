// Package stay lets a handler that keeps a connection have it counted for longer than the
// handler runs. What limits requests is in front of the handler and in another package.
package stay

import (
	"context"
	"sync"
	"sync/atomic"
)

// A Stay is what somebody in front of a handler counts, such as a handshake. It ends once
// all who hold it have released it. All methods may be called concurrently.
type Stay struct {
	owner Owner
	outer *Stay // of somebody further in front
	held  atomic.Int32
}

// An Owner is told once when its Stay has ended.
type Owner interface{ End() }

type key struct{}

// Begin begins a stay, which owner holds until it calls Release. It returns the context that
// the handler is to be called with.
func (s *Stay) Begin(ctx context.Context, owner Owner) context.Context {
	s.owner = owner
	s.outer, _ = ctx.Value(key{}).(*Stay)
	s.held.Store(1)
	return context.WithValue(ctx, key{}, s)
}

// Release is called once for Begin.
func (s *Stay) Release() {
	if s.held.Add(-1) == 0 {
		s.owner.End()
	}
}

// Hold holds all stays of a request until release is called; it may be called again, which
// does nothing. ctx is the request's context. If there is no stay, or all have ended because
// the handler has returned, release is nil.
func Hold(ctx context.Context) (release func()) {
	innermost, _ := ctx.Value(key{}).(*Stay)
	for innermost != nil && !innermost.hold() {
		innermost = innermost.outer
	}
	if innermost == nil {
		return nil
	}
	for s := innermost.outer; s != nil; s = s.outer {
		s.held.Add(1) // it is held: whoever holds a stay holds those in front of it
	}
	return sync.OnceFunc(func() {
		for s := innermost; s != nil; s = s.outer {
			s.Release()
		}
	})
}

// hold holds a stay unless it has ended.
func (s *Stay) hold() bool {
	for {
		n := s.held.Load()
		if n == 0 {
			return false
		}
		if s.held.CompareAndSwap(n, n+1) {
			return true
		}
	}
}
