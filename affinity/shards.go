package affinity

import (
	"hash/maphash"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// shards is a bounded table in parts with a lock each, so that no lock is
// shared by all requests. A full part forgets what was not used for longest.
type shards[V any] struct {
	seed  maphash.Seed
	parts []shard[V]
}

type shard[V any] struct {
	mu   sync.Mutex
	pins *simplelru.LRU[string, V] // lru.Cache would only add a second lock
	_    [48]byte                  // keeps neighbouring locks off one cache line
}

// newShards returns a table of that many pins, 100,000 if size isn't positive.
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
		// NewLRU fails only for a size below one.
		s.parts[i].pins, _ = simplelru.NewLRU[string, V]((size+parts-1)/parts, nil)
	}
	return s
}

// of returns the part that has key. The hash is seeded, so that clients who
// choose their keys can't choose the part.
func (s *shards[V]) of(key string) *shard[V] {
	if len(s.parts) == 1 {
		return &s.parts[0]
	}
	return &s.parts[maphash.String(s.seed, key)%uint64(len(s.parts))]
}
