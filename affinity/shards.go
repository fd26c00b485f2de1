package affinity

import (
	"hash/maphash"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// shards is a bounded table in several parts. Each part has a lock of its own,
// so that requests don't share one lock. A part that is full drops the entry
// that was not used for longest.
type shards[V any] struct {
	seed  maphash.Seed
	parts []shard[V]
}

type shard[V any] struct {
	mu   sync.Mutex
	pins *simplelru.LRU[string, V] // not lru.Cache, which has a lock itself
	_    [48]byte                  // keeps the locks of two parts out of one cache line
}

// newShards returns a table of size entries, or of 100,000 if size isn't
// positive.
func newShards[V any](size int) *shards[V] {
	parts := 16
	if size <= 0 {
		size = 100_000
	}
	if size <= 4096 {
		parts = 1
	}
	s := &shards[V]{seed: maphash.MakeSeed(), parts: make([]shard[V], parts)}
	for i := range s.parts {
		// NewLRU fails only for a size below 1.
		s.parts[i].pins, _ = simplelru.NewLRU[string, V]((size+parts-1)/parts, nil)
	}
	return s
}

// of returns the part that has key. The hash is seeded: clients that choose
// their keys must not be able to fill one part on purpose.
func (s *shards[V]) of(key string) *shard[V] {
	if len(s.parts) == 1 {
		return &s.parts[0]
	}
	return &s.parts[maphash.String(s.seed, key)%uint64(len(s.parts))]
}
