package affinity

import (
	"slices"
	"time"
)

// redisMemory has the pins of Redis that one replica knows. It is safe for
// concurrent use.
type redisMemory struct {
	idle, age time.Duration      // 0: never
	pins      *shards[*redisPin] // nil: there is no memory
}

// A redisPin is a pin as this replica knows it. In the memory its key is in one of
// these states:
//
//	absent    there is no redisPin
//	fresh     asked is less than Redis.Fresh ago: Load returns it from memory
//	stale     asked is longer ago: Load asks Redis
//	doubtful  asked is zero: Load asks Redis
//	pending   replaces isn't empty: it was made while Redis was away,
//	          and Load writes it to Redis
//
// These functions move a key from one state to another, under the lock of its shard:
//
//	learn       Redis has answered               to fresh, or to absent if it has no pin
//	learn       but its answer may be older than
//	            what the memory has              to doubtful; pending stays pending
//	swap        Redis has not answered a Swap    to pending
//	unanswered  Redis may have stored a backend  pending: one more in replaces
//	living      Idle or Age has passed           to absent
//	any Add     the shard is full                to absent, if not used for longest
type redisPin struct {
	backend string
	born    time.Time // when the client was bound to backend
	used    time.Time // when Load, Touch or Swap used it here
	asked   time.Time // when Redis was asked for it; zero: ask again
	learnt  time.Time // when it came into the memory

	// replaces are the backends any of which the pin replaces in Redis: what was
	// there before, and each backend that this replica has tried to write since
	// without an answer, as Redis may have stored it nevertheless. It is empty
	// for a pin that Redis knows.
	replaces []string
}

// get returns the pin of key and marks it used, unless it has expired.
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

// touch returns the pin of key like get, but marks it used only if its backend is this one.
func (m *redisMemory) touch(key, backend string, now time.Time) (redisPin, bool) {
	if m.pins == nil {
		return redisPin{}, false
	}
	s := m.pins.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.pins.Peek(key)
	if ok && p.backend == backend {
		if p = m.living(s, key, now); p != nil {
			p.used = now
		}
	}
	if p == nil {
		return redisPin{}, false
	}
	return *p, true
}

// learn stores what Redis has answered.
func (m *redisMemory) learn(key string, stored redisPin) {
	if m.pins == nil {
		return
	}
	s := m.pins.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.pins.Get(key); ok && stored.asked.Before(p.learnt) && stored.backend != p.backend {
		// The pin came into the memory while Redis was asked. It can't be told
		// which of the two is newer, so the next Load asks again.
		p.asked = time.Time{}
		return
	}
	if stored.backend == "" {
		s.pins.Remove(key)
		return
	}
	s.pins.Add(key, &stored)
}

// swap moves a pin in the memory alone, and returns the backend that is there
// now. The pin is then pending.
func (m *redisMemory) swap(key, old, new string) (now string) {
	if m.pins == nil {
		return ""
	}
	s := m.pins.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := time.Now()
	moved := &redisPin{backend: new, born: t, used: t, learnt: t, replaces: []string{old}}
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

// unanswered notes that Redis was told to store backend for key and has not
// answered. Redis may have stored it, so a pending pin of key replaces that
// backend too.
func (m *redisMemory) unanswered(key, backend string) {
	if m.pins == nil {
		return
	}
	s := m.pins.of(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.pins.Get(key); ok && len(p.replaces) > 0 && !slices.Contains(p.replaces, backend) {
		p.replaces = append(slices.Clip(p.replaces), backend) // a copy: get has handed the slice out
	}
}

// living returns the pin of key. It returns nil if there is none or it has
// expired. The caller holds the lock of s.
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

// age returns the milliseconds since the client was bound to backend.
func (p redisPin) age() int64 {
	if p.born.IsZero() {
		return 0
	}
	return max(0, time.Since(p.born).Milliseconds())
}
