package affinity_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/limpet-go/limpet/affinity"
)

// brokenStore always fails and records the keys that it is asked for. EngineIO may ask it
// again when its test is over.
type brokenStore struct {
	mu   sync.Mutex
	keys []string
}

func (s *brokenStore) fail(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append(s.keys, key)
	return errStore
}

func (s *brokenStore) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.keys)
}

var errStore = errors.New("connection refused")

func (s *brokenStore) Load(_ context.Context, key string) (string, error) {
	return "", s.fail(key)
}

func (s *brokenStore) Swap(_ context.Context, key, _, _ string) (string, error) {
	return "", s.fail(key)
}

func TestTableWithABrokenStore(t *testing.T) {
	t.Parallel()
	table := &affinity.Table{Name: "user", Key: affinity.Header("User"), Store: &brokenStore{}}
	r := get("/")
	r.Header.Set("User", "ann")
	found, err := table.Find(r)
	if !errors.Is(err, errStore) || found != (affinity.Pin{Key: "ann"}) {
		t.Errorf("Find = %+v, %v", found, err)
	}
	_, err = table.Bind(to("b1", &http.Response{Request: r}, found))
	if !errors.Is(err, errStore) || !strings.Contains(err.Error(), `"b1"`) || strings.Contains(err.Error(), "ann") {
		t.Errorf("Bind = %v", err)
	}
}

func TestTableAsksTheStoreOnlyForNews(t *testing.T) {
	t.Parallel()
	store := &brokenStore{}
	table := &affinity.Table{Key: affinity.Header("User"), Store: store}
	r := get("/")
	if found := find(t, table, r); found != (affinity.Pin{}) {
		t.Errorf("without a key, Find = %+v", found)
	}
	bind(t, table, r, affinity.Pin{}, "b1")
	bind(t, table, r, affinity.Pin{Key: "ann", Backend: "b1", Status: affinity.Hit}, "b1")
	if len(store.keys) > 0 {
		t.Errorf("the store was asked for %q", store.keys)
	}
}

func TestTablesThatShareAStore(t *testing.T) {
	t.Parallel()
	store := &affinity.LRU{}
	byUser := &affinity.Table{Name: "user", Key: affinity.Header("User"), Store: store}
	byTeam := &affinity.Table{Name: "team", Key: affinity.Header("Team"), Store: store}
	r := get("/")
	r.Header.Set("User", "x")
	r.Header.Set("Team", "x")
	bind(t, byUser, r, find(t, byUser, r), "b1")
	if found := find(t, byTeam, r); found.Backend != "" {
		t.Errorf("the other table finds %+v", found)
	}
}

func TestTableStoresLongKeysShort(t *testing.T) {
	t.Parallel()
	store := &brokenStore{}
	table := &affinity.Table{Key: affinity.Header("User"), Store: store}
	for _, last := range []string{"a", "b"} {
		r := get("/")
		r.Header.Set("User", strings.Repeat("x", 8192)+last)
		if found, _ := table.Find(r); len(found.Key) != 8193 {
			t.Errorf("the pin's key has %d bytes", len(found.Key))
		}
	}
	if a, b := store.keys[0], store.keys[1]; a == b || len(a) > 64 || len(b) > 64 {
		t.Errorf("store keys %q and %q", a, b)
	}
}

// A parallel request of the client has stored another home before, which stays.
func TestTableLosesARace(t *testing.T) {
	t.Parallel()
	table := &affinity.Table{}
	r := get("/")
	first, second := find(t, table, r), find(t, table, r)
	bind(t, table, r, first, "b1")
	bind(t, table, r, second, "b2")
	if found := find(t, table, r); found.Backend != "b1" {
		t.Errorf("Find = %+v, want b1", found)
	}
}
