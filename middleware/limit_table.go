package middleware

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/limpet-go/limpet/internal/tokenbucket"
)

// A limitTable counts what each client has open and how fast its requests come. It is in
// several shards, so that requests don't share one lock.
type limitTable struct {
	seed        maphash.Seed // clients that choose their addresses must not be able to fill one shard
	shards      []limitShard
	connections int // that a client may have open, 0 for any number
	rate        tokenbucket.Bucket
}

// A limitShard has the clients of one part of all addresses. A client is in one of three
// places:
//
//	recent  those who came last, whether they have something open or not
//	held    those with something open whom recent had no room for any more; as many as there
//	        are open requests and tunnels at most
//	nobody  all who came when each client in recent either has something open or may not have
//	        its whole burst again yet. They count as one.
type limitShard struct {
	mu     sync.Mutex
	recent *simplelru.LRU[netip.Addr, *limitClient]
	held   map[netip.Addr]*limitClient
	nobody limitClient
	size   int
	open   int
	_      [48]byte // keeps the locks of two shards out of one cache line
}

// A limitClient is guarded by its shard's lock.
type limitClient struct {
	addr netip.Addr
	open int           // requests and tunnels
	full time.Duration // when its bucket will be
	held bool
}

func newLimitTable(size, connections int, rate tokenbucket.Bucket) *limitTable {
	shards := 64
	if size <= 4096 {
		shards = 1
	}
	t := &limitTable{seed: maphash.MakeSeed(), shards: make([]limitShard, shards), connections: connections, rate: rate}
	for i := range t.shards {
		s := &t.shards[i]
		s.size = (size + shards - 1) / shards
		s.recent, _ = simplelru.NewLRU[netip.Addr, *limitClient](s.size, nil) // fails for a size below 1
		s.held = make(map[netip.Addr]*limitClient)
	}
	return t
}

// enter counts one more request of a client for as long as s lasts. over is limits if it may
// pass; otherwise wait is in how long the next one may, as far as is known.
func (t *limitTable) enter(st *limitStay, addr netip.Addr, now time.Duration) (over limit, wait time.Duration) {
	s := t.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(addr, now)
	if t.connections > 0 && c.open >= t.connections {
		return overConnections, retryTunnel
	}
	if wait := t.rate.Take(&c.full, now); wait > 0 {
		return overRate, wait
	}
	s.count(st, c)
	return limits, 0
}

// adopt counts a tunnel of another process for as long as st lasts.
func (t *limitTable) adopt(st *limitStay, addr netip.Addr, now time.Duration) {
	s := t.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(st, s.find(addr, now))
}

// shard returns the shard of the client with this address.
func (t *limitTable) shard(addr netip.Addr) *limitShard {
	if len(t.shards) == 1 {
		return &t.shards[0]
	}
	bytes := addr.As16()
	return &t.shards[maphash.Bytes(t.seed, bytes[:])%uint64(len(t.shards))]
}

// count counts one more request or tunnel of c, until st leaves. s.mu is held.
func (s *limitShard) count(st *limitStay, c *limitClient) {
	c.open++
	s.open++
	st.shard, st.client = s, c
}

// leave counts a request or tunnel of c out.
func (s *limitShard) leave(c *limitClient, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.open--
	s.open--
	if c.held && c.open == 0 {
		delete(s.held, c.addr)
		if c.held = false; c.full > now && s.room(now) {
			s.recent.Add(c.addr, c)
		}
	}
}

// find returns the client with this address, a new one if it isn't known. s.mu is held.
func (s *limitShard) find(addr netip.Addr, now time.Duration) *limitClient {
	if c, ok := s.recent.Get(addr); ok {
		return c
	}
	if c, ok := s.held[addr]; ok {
		return c
	}
	if !s.room(now) {
		return &s.nobody
	}
	c := &limitClient{addr: addr}
	s.recent.Add(addr, c)
	return c
}

// room reports whether recent has room for one more, and makes some if nothing is lost by
// that. s.mu is held.
func (s *limitShard) room(now time.Duration) bool {
	if s.recent.Len() < s.size {
		return true
	}
	_, c, _ := s.recent.GetOldest()
	if c.open == 0 && c.full > now {
		return false
	}
	s.recent.RemoveOldest()
	if c.open > 0 {
		c.held = true
		s.held[c.addr] = c
	}
	return true
}

// count returns how many clients are remembered, and what all have open.
func (t *limitTable) count() (clients, open int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		clients += s.recent.Len() + len(s.held)
		open += s.open
		s.mu.Unlock()
	}
	return clients, open
}

// takeShared takes a token of a bucket that requests share without a lock.
func takeShared(b tokenbucket.Bucket, full *atomic.Int64, now time.Duration) (wait time.Duration) {
	for {
		old := full.Load()
		next := time.Duration(old)
		if wait := b.Take(&next, now); wait > 0 || full.CompareAndSwap(old, int64(next)) {
			return wait
		}
	}
}
