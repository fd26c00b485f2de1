package affinitytest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/limpet-go/limpet/affinity"
)

// TestStore runs the conformance tests of a store as subtests of t. newStore
// returns the store as each of several replicas has it: what one of them
// writes, all see. The tests use random keys, so the store may have pins of an
// earlier run.
func TestStore(t *testing.T, newStore func() affinity.Store) {
	t.Helper()
	t.Run("swap", func(t *testing.T) { testSwap(t, newStore()) })
	t.Run("two replicas", func(t *testing.T) {
		a, b, key := newStore(), newStore(), rand.Text()
		swap(t, a, key, "", "b1", "b1")
		load(t, b, key, "b1")
		swap(t, b, key, "b1", "b2", "b2")
		load(t, a, key, "b2")
		swap(t, a, key, "b2", "", "")
		load(t, b, key, "") // even though b has seen the pin
		swap(t, b, key, "b2", "b3", "")
		swap(t, b, key, "", "b3", "b3")
		load(t, a, key, "b3")
	})
	t.Run("odd keys", func(t *testing.T) { testOddKeys(t, newStore()) })
	t.Run("one winner", func(t *testing.T) { testOneWinner(t, newStore) })
	t.Run("no lost update", func(t *testing.T) { testNoLostUpdate(t, newStore) })
	t.Run("context done", func(t *testing.T) { testContext(t, newStore()) })
	if a, ok := newStore().(affinity.Toucher); ok {
		t.Run("touch", func(t *testing.T) { testTouch(t, a, newStore()) })
	}
}

// Whatever is touched, no pin comes or changes. What touches do to lifetimes, only tests of
// the store itself can find out.
func testTouch(t *testing.T, a affinity.Toucher, b affinity.Store) {
	key := rand.Text()
	touch := func(backend, want string) {
		t.Helper()
		if err := a.Touch(t.Context(), key, backend); err != nil {
			t.Errorf("Touch(%q): %v", backend, err)
		}
		load(t, b, key, want)
		load(t, a, key, want)
	}
	touch("b1", "")
	swap(t, a, key, "", "b1", "b1")
	touch("b1", "b1")
	touch("b2", "b1")
	swap(t, b, key, "b1", "b2", "b2")
	touch("b1", "b2")
	touch("b2", "b2")
	swap(t, b, key, "b2", "", "")
	touch("b2", "")
	touch("b1", "")
	swap(t, a, key, "", "b3", "b3")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Touch(ctx, key, "b3"); !errors.Is(err, context.Canceled) {
		t.Errorf("Touch: error = %v, want %v", err, context.Canceled)
	}
	if every := a.TouchEvery(); every < 0 || every != a.TouchEvery() {
		t.Errorf("TouchEvery = %v, and then %v", every, a.TouchEvery())
	}
}

func testSwap(t *testing.T, s affinity.Store) {
	key := rand.Text()
	for _, step := range []struct{ what, old, new, now string }{
		{"swap of an absent key loses", "b1", "b2", ""},
		{"delete of an absent key", "", "", ""},
		{"set", "", "b1", "b1"},
		{"set of a present key loses", "", "b2", "b1"},
		{"swap of another backend loses", "b3", "b2", "b1"},
		{"swap by itself", "b1", "b1", "b1"},
		{"swap wins", "b1", "b2", "b2"},
		{"delete of another backend loses", "b1", "", "b2"},
		{"delete of an absent key loses", "", "", "b2"},
		{"delete wins", "b2", "", ""},
		{"set again", "", "b3", "b3"},
	} {
		t.Log(step.what)
		swap(t, s, key, step.old, step.new, step.now)
		load(t, s, key, step.now)
	}
}

func testOddKeys(t *testing.T, s affinity.Store) {
	base := rand.Text()
	keys := []string{"", " ", ":", "::", "\x00", "\xff", "*", "{", "{a}", "{b}", "%s", "é", "\r\n", strings.Repeat("x", 300)}
	for i, key := range keys {
		swap(t, s, base+key, "", fmt.Sprint("a:b-", i), fmt.Sprint("a:b-", i))
	}
	for i, key := range keys {
		load(t, s, base+key, fmt.Sprint("a:b-", i))
	}
}

// Many swap the same old backend at once: exactly one wins, and all get to know it.
func testOneWinner(t *testing.T, newStore func() affinity.Store) {
	const swappers = 16
	stores := []affinity.Store{newStore(), newStore()}
	for range 20 {
		key, old := rand.Text(), ""
		for round := range 3 {
			var nows [swappers]string
			var wg sync.WaitGroup
			for i := range nows {
				wg.Go(func() {
					now, err := stores[i%2].Swap(t.Context(), key, old, fmt.Sprintf("b%d.%d", round, i))
					if err != nil {
						t.Errorf("Swap: %v", err)
					}
					nows[i] = now
				})
			}
			wg.Wait()
			won := 0
			for i, now := range nows {
				if now == fmt.Sprintf("b%d.%d", round, i) {
					won++
				}
				if now != nows[0] {
					t.Errorf("Swap = %q and %q, want one winner", now, nows[0])
				}
			}
			if won != 1 {
				t.Fatalf("%d swaps of %q won", won, old)
			}
			load(t, stores[0], key, nows[0])
			old = nows[0]
		}
	}
}

// Many count up by Swap alone. A swap that overwrites another one loses a count.
func testNoLostUpdate(t *testing.T, newStore func() affinity.Store) {
	const counters, each = 8, 50
	stores := []affinity.Store{newStore(), newStore()}
	key := rand.Text()
	var wg sync.WaitGroup
	for i := range counters {
		wg.Go(func() {
			s, old := stores[i%2], ""
			for done := 0; done < each; {
				count, _, _ := strings.Cut(old, ".")
				n, _ := strconv.Atoi(count)
				now, err := s.Swap(t.Context(), key, old, fmt.Sprintf("%d.%d", n+1, i))
				if err != nil {
					t.Errorf("Swap: %v", err)
					return
				}
				if now == fmt.Sprintf("%d.%d", n+1, i) {
					done++
				}
				old = now
			}
		})
	}
	wg.Wait()
	got, err := stores[0].Load(t.Context(), key)
	if n, _, _ := strings.Cut(got, "."); err != nil || n != strconv.Itoa(counters*each) {
		t.Errorf("counted to %q, %v, want %d", got, err, counters*each)
	}
}

func testContext(t *testing.T, s affinity.Store) {
	key := rand.Text()
	swap(t, s, key, "", "b1", "b1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Load(ctx, key); !errors.Is(err, context.Canceled) {
		t.Errorf("Load: error = %v, want %v", err, context.Canceled)
	}
	if _, err := s.Swap(ctx, key, "b1", "b2"); !errors.Is(err, context.Canceled) {
		t.Errorf("Swap: error = %v, want %v", err, context.Canceled)
	}
	load(t, s, key, "b1")
}

func swap(t *testing.T, s affinity.Store, key, old, new, want string) {
	t.Helper()
	if now, err := s.Swap(t.Context(), key, old, new); now != want || err != nil {
		t.Errorf("Swap(%.40q, %q, %q) = %q, %v, want %q", key, old, new, now, err, want)
	}
}

func load(t *testing.T, s affinity.Store, key, want string) {
	t.Helper()
	if got, err := s.Load(t.Context(), key); got != want || err != nil {
		t.Errorf("Load(%.40q) = %q, %v, want %q", key, got, err, want)
	}
}
