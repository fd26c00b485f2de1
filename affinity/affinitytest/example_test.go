package affinitytest_test

import (
	"context"
	"sync"
	"testing"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/affinity/affinitytest"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// A store of your own: the smallest that passes.
type mapStore struct {
	mu   sync.Mutex
	pins map[string]string
}

func (s *mapStore) Load(ctx context.Context, key string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pins[key], ctx.Err()
}

func (s *mapStore) Swap(ctx context.Context, key, old, new string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if s.pins[key] == old {
		s.pins[key] = new
	}
	return s.pins[key], nil
}

func TestMapStore(t *testing.T) {
	shared := &mapStore{pins: map[string]string{}}
	affinitytest.TestStore(t, func() affinity.Store { return shared })
}

func TestTableOnMapStore(t *testing.T) {
	shared := &mapStore{pins: map[string]string{}}
	affinitytest.TestAffinity(t, func() affinity.Affinity {
		return &affinity.Table{Key: affinity.Header("Client"), Store: shared}
	}, affinitytest.Options{Remembers: true})
}
