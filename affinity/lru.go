package affinity

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// LRU is a [Store] in the memory of this process. It holds a bounded number of
// pins, and if it is full it forgets those that have not been used for longest.
// Its zero value is ready for use, and it starts no goroutine: an expired pin
// keeps its memory until it is looked up or pushed out. An LRU must not be
// copied.
type LRU struct {
	// Size is the number of pins. Each takes about 200 bytes beside its key and
	// ID. The number is exact up to 4,096. A larger one is split over 16 parts,
	// which don't fill evenly. 0 means 100,000.
	Size int

	// Idle is the time after which an unused pin is forgotten. A tunnel of a
	// gateway uses its client's pin for as long as it is open. 0 means 24
	// hours, negative means never.
	Idle time.Duration

	// Age is the time after which a pin is forgotten even if it is used,
	// counted from when the client was bound to this backend. 0 means never.
	Age time.Duration

	once sync.Once
	pins *shards[*entry]
}

// An entry is changed under the lock of its shard.
type entry struct {
	backend    string
	born, used time.Time
}

// Load returns the backend of key and restarts its Idle time.
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

// Swap replaces the backend of key as [Store] says, and restarts its lifetimes
// if it wins.
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

// Touch restarts the Idle time of the pin of key if its backend is this one.
func (l *LRU) Touch(ctx context.Context, key, backend string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("affinity: LRU: touch: %w", err)
	}
	s := l.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.pins.Peek(key); ok && e.backend == backend {
		l.get(s, key)
	}
	return nil
}

// TouchEvery returns a quarter of Idle, or 0 if that is never.
func (l *LRU) TouchEvery() time.Duration { return l.idle() / 4 }

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

// get returns the entry of key and marks it used. It returns nil if there is
// none or it has expired. The caller holds the lock of s.
func (l *LRU) get(s *shard[*entry], key string) *entry {
	e, ok := s.pins.Get(key)
	if !ok {
		return nil
	}
	now := time.Now()
	if idle := l.idle(); idle > 0 && now.Sub(e.used) >= idle || l.Age > 0 && now.Sub(e.born) >= l.Age {
		s.pins.Remove(key)
		return nil
	}
	e.used = now
	return e
}

// idle returns Idle with its default filled in, or 0 for never.
func (l *LRU) idle() time.Duration {
	if l.Idle == 0 {
		return defaultIdle
	}
	return max(0, l.Idle)
}

// shard returns the part that has key.
func (l *LRU) shard(key string) *shard[*entry] {
	l.once.Do(func() { l.pins = newShards[*entry](l.Size) })
	return l.pins.of(key)
}
