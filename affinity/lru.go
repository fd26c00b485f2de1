package affinity

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// LRU is a [Store] in the memory of this process. It holds a bounded number of
// pins and forgets those that were not used for longest. Its zero value is
// ready; it starts no goroutine, and a pin that has expired gives its memory
// back when it is looked up or pushed out. An LRU must not be copied.
type LRU struct {
	// Size is the number of pins, about 200 bytes each beside key and ID. It
	// is exact up to 4,096, and above split over 16 parts that fill unevenly.
	// 0 means 100,000.
	Size int

	// Idle is the time after which an unused pin is forgotten. 0 means 24
	// hours: a client that comes back after a day's long WebSocket is still
	// known. Negative means never.
	Idle time.Duration

	// Age is the time after which a pin is forgotten however much it is used,
	// counted from when the client was bound to this backend. 0 means never.
	Age time.Duration

	once   sync.Once
	seed   maphash.Seed
	shards []shard
}

// A shard is a part of the LRU with a lock of its own, so that no lock is
// shared by all requests.
type shard struct {
	mu   sync.Mutex
	pins *simplelru.LRU[string, *entry] // lru.Cache would only add a second lock
	_    [48]byte                       // keeps neighbouring locks off one cache line
}

type entry struct {
	backend    string
	born, used time.Time
}

// Load returns the backend of key, and starts its Idle time anew.
func (l *LRU) Load(ctx context.Context, key string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("affinity: LRU: load: %w", err)
	}
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := l.get(s, key)
	if e == nil {
		return "", nil
	}
	return e.backend, nil
}

// Swap replaces the backend of key as [Store] says, and starts its lifetimes
// anew if it wins.
func (l *LRU) Swap(ctx context.Context, key, old, new string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("affinity: LRU: swap: %w", err)
	}
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := ""
	if e := l.get(s, key); e != nil {
		now = e.backend
	}
	if now != old {
		return now, nil
	}
	if new == "" {
		s.pins.Remove(key)
		return "", nil
	}
	t := time.Now()
	s.pins.Add(key, &entry{backend: new, born: t, used: t})
	return new, nil
}

// Validate refuses a negative Size.
func (l *LRU) Validate() error {
	if l.Size < 0 {
		return fmt.Errorf("affinity: LRU: size %d is negative", l.Size)
	}
	return nil
}

// get returns the living entry of key and marks it used. The shard is locked.
func (l *LRU) get(s *shard, key string) *entry {
	e, ok := s.pins.Get(key)
	if !ok {
		return nil
	}
	idle := l.Idle
	if idle == 0 {
		idle = 24 * time.Hour
	}
	now := time.Now()
	if idle > 0 && now.Sub(e.used) >= idle || l.Age > 0 && now.Sub(e.born) >= l.Age {
		s.pins.Remove(key)
		return nil
	}
	e.used = now
	return e
}

// shard returns the part that has key. The hash is seeded, so that clients who
// choose their keys can't choose the shard.
func (l *LRU) shard(key string) *shard {
	l.once.Do(l.init)
	if len(l.shards) == 1 {
		return &l.shards[0]
	}
	return &l.shards[maphash.String(l.seed, key)%uint64(len(l.shards))]
}

func (l *LRU) init() {
	size, parts := l.Size, 16
	if size <= 0 {
		size = 100_000
	}
	if size <= 4096 {
		parts = 1
	}
	l.seed = maphash.MakeSeed()
	l.shards = make([]shard, parts)
	for i := range l.shards {
		// NewLRU fails only for a size below one.
		l.shards[i].pins, _ = simplelru.NewLRU[string, *entry]((size+parts-1)/parts, nil)
	}
}
