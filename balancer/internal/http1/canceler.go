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
		mu    sync.Mutex
		young []*call
		_     [32]byte // a cache line each
	}
	armed atomic.Bool
}

// patience is how late a call may notice that its context has ended.
const patience = 10 * time.Millisecond

// begin watches over c. Who waits until a moment is told in time.
func (k *Canceler) begin(c *call) {
	ctx := c.req.Context()
	if ctx.Done() == nil {
		return
	}
	if _, hurried := ctx.Deadline(); hurried {
		c.listen()
		return
	}
	s := &k.shards[rand.Uint32N(uint32(len(k.shards)))]
	s.mu.Lock()
	s.young = append(s.young, c)
	s.mu.Unlock()
	if !k.armed.Load() && k.armed.CompareAndSwap(false, true) {
		time.AfterFunc(patience, k.grow)
	}
}

// grow has all contexts of young calls tell.
func (k *Canceler) grow() {
	k.armed.Store(false) // first: a call that begins from here on sees to its own
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		for _, c := range s.young {
			c.listen()
		}
		clear(s.young)
		s.young = s.young[:0]
		s.mu.Unlock()
	}
}

// listen has the end of the context end the call, if that isn't over.
func (c *call) listen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.unhook = context.AfterFunc(c.req.Context(), c.conn.abort)
	}
}

// stop ends the watch over the request's context. It reports whether that was in
// time, and the connection is as it was.
func (c *call) stop() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	return c.unhook == nil || c.unhook()
}
