package affinity_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/affinity"
)

func TestLRULifetimes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		lru   *affinity.LRU
		steps []time.Duration // from one load to the next
		want  string          // . there, x gone
	}{
		{"idle by default", &affinity.LRU{}, []time.Duration{23 * time.Hour, 23 * time.Hour, 24 * time.Hour}, "..x"},
		{"idle", &affinity.LRU{Idle: time.Minute}, []time.Duration{59 * time.Second, 59 * time.Second, time.Minute}, "..x"},
		{"never idle", &affinity.LRU{Idle: -1}, []time.Duration{10000 * time.Hour}, "."},
		{"age", &affinity.LRU{Age: time.Minute}, []time.Duration{30 * time.Second, 29 * time.Second, time.Second}, "..x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				swap(t, tt.lru, "k", "", "b0", "b0")
				time.Sleep(time.Second)
				swap(t, tt.lru, "k", "b0", "b1", "b1") // starts anew
				got := ""
				for _, step := range tt.steps {
					time.Sleep(step)
					if home, err := tt.lru.Load(t.Context(), "k"); err != nil || home != "b1" {
						got += "x"
					} else {
						got += "."
					}
				}
				if got != tt.want {
					t.Errorf("loads went %q, want %q", got, tt.want)
				}
			})
		})
	}
}

func TestLRUSwapOfAnExpiredPin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lru := &affinity.LRU{Idle: time.Minute}
		swap(t, lru, "k", "", "b1", "b1")
		time.Sleep(time.Minute)
		swap(t, lru, "k", "b1", "b2", "")
		swap(t, lru, "k", "", "b2", "b2")
	})
}

func TestLRUIsBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ size, min, max int }{
		{10, 10, 10},
		{10_000, 9_000, 10_000},
	} {
		lru := &affinity.LRU{Size: tt.size}
		for i := range 2 * tt.size {
			swap(t, lru, fmt.Sprint(i), "", "b1", "b1")
		}
		there := 0
		for i := range 2 * tt.size {
			if home, _ := lru.Load(t.Context(), fmt.Sprint(i)); home != "" {
				there++
			}
		}
		if there < tt.min || there > tt.max {
			t.Errorf("size %d holds %d pins", tt.size, there)
		}
	}

	// Pins that are used stay, the others go.
	lru := &affinity.LRU{Size: 2}
	swap(t, lru, "a", "", "b1", "b1")
	swap(t, lru, "b", "", "b1", "b1")
	swap(t, lru, "a", "b2", "b3", "b1")
	swap(t, lru, "c", "", "b1", "b1")
	for key, want := range map[string]string{"a": "b1", "b": "", "c": "b1"} {
		if home, _ := lru.Load(t.Context(), key); home != want {
			t.Errorf("Load(%q) = %q, want %q", key, home, want)
		}
	}
}

func swap(t *testing.T, s affinity.Store, key, old, new, want string) {
	t.Helper()
	if now, err := s.Swap(t.Context(), key, old, new); now != want || err != nil {
		t.Errorf("Swap(%q, %q, %q) = %q, %v, want %q", key, old, new, now, err, want)
	}
}
