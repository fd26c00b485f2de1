package http1

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A Canceler ends calls whose request's context has ended. The zero value is ready.
//
// [context.AfterFunc] for each call would cost more than most calls do. So a new call
// is only put on a list of recent ones. After at most patience those that aren't over
// are hooked to their contexts, all at once.
type Canceler struct {
	shards [8]struct {
		mu     sync.Mutex
		recent []*call
		_      [32]byte // a cache line each
	}
	armed atomic.Bool // hookRecent is due
}

// patience is how late at most a call notices that its context has ended.
const patience = 10 * time.Millisecond

// begin makes the end of its context end c. A context with a deadline is hooked at
// once: it is expected to be on time. Others aren't even asked whether they can end, since
// the context of a server's request makes a channel to answer that.
func (cc *Canceler) begin(c *call) {
	if _, hasDeadline := c.req.Context().Deadline(); hasDeadline {
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

// hookRecent hooks the recent calls to their contexts.
func (cc *Canceler) hookRecent() {
	cc.armed.Store(false) // first, so that a call that begins from here on arms it again
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

// hook makes the end of the request's context abort the connection, unless the call
// is over.
func (c *call) hook() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.released {
		c.stopHook = context.AfterFunc(c.req.Context(), c.conn.abort)
	}
}

// unhook makes sure that the request's context does nothing to the connection from
// here on. It reports false if it came too late: the connection is being closed.
func (c *call) unhook() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.released = true
	return c.stopHook == nil || c.stopHook()
}
