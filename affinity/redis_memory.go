package affinity

import (
	"slices"
	"time"
)

// redisMemory is what one replica knows of the pins in Redis. It is safe for
// concurrent use.
type redisMemory struct {
	idle, age time.Duration      // 0: never
	pins      *shards[*redisPin] // nil: it remembers nothing
}

// A redisPin is a pin as this replica knows it. In the memory, an entry is
// changed under the lock of its shard.
type redisPin struct {
	backend string
	born    time.Time // when the client was bound to backend
	used    time.Time // here, by Load or Swap
	asked   time.Time // when Redis was asked that told so; zero: ask again
	told    time.Time // when this replica got to know it

	// A pin that was made while Redis was away is to be told there. It replaces
	// any of these: what was there before, and what Redis was told meanwhile
	// without an answer, and may have done all the same. Empty: Redis knows it.
	replaces []string
}

// get returns the living pin of key and marks it used.
func (m *redisMemory) get(key string, now time.Time) (redisPin, bool) {
	if m.pins == nil {
		return redisPin{}, false
	}
	s := m.pins.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := m.living(s, key, now)
	if p == nil {
		return redisPin{}, false
	}
	p.used = now
	return *p, true
}

// learn remembers what Redis told.
func (m *redisMemory) learn(key string, heard redisPin) {
	if m.pins == nil {
		return
	}
	s := m.pins.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.pins.Get(key); ok && heard.asked.Before(p.told) && heard.backend != p.backend {
		// Two calls were under way at once, and which answer is the newer one
		// can't be told: the next Load asks again.
		p.asked = time.Time{}
		return
	}
	if heard.backend == "" {
		s.pins.Remove(key)
		return
	}
	s.pins.Add(key, &heard)
}

// swap moves a pin without Redis, and returns the backend that is there now.
func (m *redisMemory) swap(key, old, new string) (now string) {
	if m.pins == nil {
		return ""
	}
	s := m.pins.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := time.Now()
	moved := &redisPin{backend: new, born: t, used: t, told: t, replaces: []string{old}}
	if p := m.living(s, key, t); p != nil {
		if p.backend != old {
			return p.backend
		}
		if len(p.replaces) > 0 {
			moved.replaces = p.replaces
		}
	}
	s.pins.Add(key, moved)
	return new
}

// unanswered notes that Redis was told of a backend for key, and failed.
func (m *redisMemory) unanswered(key, backend string) {
	if m.pins == nil {
		return
	}
	s := m.pins.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.pins.Get(key); ok && len(p.replaces) > 0 && !slices.Contains(p.replaces, backend) {
		p.replaces = append(slices.Clip(p.replaces), backend) // others may hold the old ones
	}
}

// living returns the pin of key unless it has expired. The shard is locked.
func (m *redisMemory) living(s *shard[*redisPin], key string, now time.Time) *redisPin {
	p, ok := s.pins.Get(key)
	if !ok {
		return nil
	}
	if m.idle > 0 && now.Sub(p.used) >= m.idle || m.age > 0 && now.Sub(p.born) >= m.age {
		s.pins.Remove(key)
		return nil
	}
	return p
}

// age returns the milliseconds since the client was bound.
func (p redisPin) age() int64 {
	if p.born.IsZero() {
		return 0
	}
	return max(0, time.Since(p.born).Milliseconds())
}
