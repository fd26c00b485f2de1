package http1

import (
	"math/rand/v2"
	"net/http"
	"net/textproto"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// idleConns hold an origin's idle connections. They are split into shards with a lock
// each, so that requests hardly ever wait for one another. A timer closes the
// connections that nobody has used in time; it runs only while there are any.
type idleConns struct {
	shards []shard
	max    int64
	n      atomic.Int64 // of connections in all shards

	mu    sync.Mutex // held to change what follows
	timer *time.Timer
	next  atomic.Int64 // when the next sweep is due, in Unix nanoseconds; 0: none is
}

// A shard is a stack with the connection used last on top, so that those at the bottom
// expire when fewer are needed.
type shard struct {
	mu    sync.Mutex
	n     atomic.Int32 // len(conns), to be read without the lock
	conns []*conn
	_     [64]byte // a cache line between neighbours
}

func newIdleConns(max int) *idleConns {
	return &idleConns{shards: make([]shard, min(runtime.GOMAXPROCS(0), 8)), max: int64(max)}
}

// randomShard returns the index of a shard, mostly another one than other goroutines
// get at the same time.
func (i *idleConns) randomShard() int { return int(rand.Uint32N(uint32(len(i.shards)))) }

// pop takes the connection with this key that was used last out of the first shard that
// has one. It returns nil if there is none.
func (i *idleConns) pop(key string) *conn {
	first := i.randomShard()
	for k := range i.shards {
		s := &i.shards[(first+k)%len(i.shards)]
		if s.n.Load() == 0 {
			continue
		}
		if c := s.pop(key); c != nil {
			i.n.Add(-1)
			return c
		}
	}
	return nil
}

func (s *shard) pop(key string) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, c := range slices.Backward(s.conns) {
		if c.key == key {
			s.conns = slices.Delete(s.conns, k, k+1)
			s.n.Store(int32(len(s.conns)))
			return c
		}
	}
	return nil
}

// push adds a connection. If there are too many now it closes the oldest of the shard.
func (i *idleConns) push(c *conn) {
	var old *conn
	until := c.until // read now: as soon as c is in the shard another goroutine may take it
	s := &i.shards[i.randomShard()]
	s.mu.Lock()
	s.conns = append(s.conns, c)
	if i.n.Add(1) > i.max {
		i.n.Add(-1)
		old = s.conns[0]
		s.conns = slices.Delete(s.conns, 0, 1)
	}
	s.n.Store(int32(len(s.conns)))
	s.mu.Unlock()
	if old != nil {
		old.close()
	}
	i.arm(until)
}

// arm makes sure that a sweep is due at that time, or sooner.
func (i *idleConns) arm(at time.Time) {
	due := func() bool {
		next := i.next.Load()
		return next != 0 && next <= at.UnixNano()
	}
	if due() {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if due() {
		return
	}
	i.next.Store(at.UnixNano())
	if i.timer == nil {
		i.timer = time.AfterFunc(time.Until(at), i.sweep)
	} else {
		i.timer.Reset(time.Until(at))
	}
}

// sweep closes the connections whose time is over, and arms itself for the next one.
func (i *idleConns) sweep() {
	i.mu.Lock()
	i.next.Store(0) // first: a push from here on arms a sweep of its own, which this one may miss
	i.mu.Unlock()
	now := time.Now()
	var next time.Time
	i.remove(func(c *conn) bool {
		expired := !now.Before(c.until)
		if !expired && (next.IsZero() || c.until.Before(next)) {
			next = c.until
		}
		return expired
	})
	if !next.IsZero() {
		i.arm(next)
	}
}

// clear closes all connections.
func (i *idleConns) clear() { i.remove(func(*conn) bool { return true }) }

// remove takes out and closes the connections for which f returns true.
func (i *idleConns) remove(f func(*conn) bool) {
	for k := range i.shards {
		s := &i.shards[k]
		var gone []*conn
		s.mu.Lock()
		s.conns = slices.DeleteFunc(s.conns, func(c *conn) bool {
			if f(c) {
				gone = append(gone, c)
				return true
			}
			return false
		})
		s.n.Store(int32(len(s.conns)))
		s.mu.Unlock()
		i.n.Add(-int64(len(gone)))
		for _, c := range gone {
			c.close()
		}
	}
}

// idleTime returns how long a connection may be idle after an answer with this header,
// 0 if not at all. An origin that names a time in Keep-Alive (RFC 2068, section
// 19.7.1.1; Node and Apache send it) began to count before the answer arrived here, so
// the connection is given up a second earlier.
func (o *Origin) idleTime(h http.Header) time.Duration {
	limit := o.IdleTimeout
	for _, line := range h["Keep-Alive"] {
		for member := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(textproto.TrimString(member), "=")
			if !strings.EqualFold(textproto.TrimString(name), "timeout") {
				continue
			}
			if n, err := strconv.ParseUint(textproto.TrimString(value), 10, 16); err == nil {
				says := time.Duration(n) * time.Second
				limit = min(limit, max(says-time.Second, says/2))
			}
		}
	}
	return limit
}
