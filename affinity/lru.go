package affinity

import (
	"context"
	"fmt"
	"sync"
	"time"
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

	once sync.Once
	pins *shards[*entry]
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

// Validate refuses a negative Size or Age.
func (l *LRU) Validate() error {
	if l.Size < 0 {
		return fmt.Errorf("affinity: LRU: size %d is negative", l.Size)
	}
	if l.Age < 0 {
		return fmt.Errorf("affinity: LRU: age %v is negative; 0 means that a pin has none", l.Age)
	}
	return nil
}

// get returns the living entry of key and marks it used. The shard is locked.
func (l *LRU) get(s *shard[*entry], key string) *entry {
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

// shard returns the part that has key.
func (l *LRU) shard(key string) *shard[*entry] {
	l.once.Do(func() { l.pins = newShards[*entry](l.Size) })
	return l.pins.of(key)
}
