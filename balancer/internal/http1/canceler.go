package http1

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A Canceler ends calls whose context has ended. To have a context tell costs more
// than most calls take, so calls are young at first, for up to patience, and only
// those that are still there then are told.
type Canceler struct {
	shards [8]struct {
		mu     sync.Mutex
		recent []*call
		_      [32]byte // a cache line each
	}
	armed atomic.Bool
}

// patience is how late a call may notice that its context has ended.
const patience = 10 * time.Millisecond

// begin watches over c. Who waits until a moment is told in time.
func (cc *Canceler) begin(c *call) {
	ctx := c.req.Context()
	if ctx.Done() == nil {
		return
	}
	if _, hurried := ctx.Deadline(); hurried {
		c.hook()
		return
	}
	s := &cc.shards[rand.Uint32N(uint32(len(cc.shards)))]
	s.mu.Lock()
	s.recent = append(s.recent, c)
	s.mu.Unlock()
	if !cc.armed.Load() && cc.armed.CompareAndSwap(false, true) {
		time.AfterFunc(patience, cc.hookRecent)
	}
}

// hookRecent has all contexts of young calls tell.
func (cc *Canceler) hookRecent() {
	cc.armed.Store(false) // first: a call that begins from here on sees to its own
	for i := range cc.shards {
		s := &cc.shards[i]
		s.mu.Lock()
		for _, c := range s.recent {
			c.hook()
		}
		clear(s.recent)
		s.recent = s.recent[:0]
		s.mu.Unlock()
	}
}

// hook has the end of the context end the call, if that isn't over.
func (c *call) hook() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.released {
		c.stopHook = context.AfterFunc(c.req.Context(), c.conn.abort)
	}
}

// unhook ends the watch over the request's context. It reports whether that was in
// time, and the connection is as it was.
func (c *call) unhook() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.released = true
	return c.stopHook == nil || c.stopHook()
}
