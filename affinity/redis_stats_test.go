package affinity_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/internal/redistest"
)

func TestRedisStats(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	store := &affinity.Redis{Client: server.Client(t), Timeout: patience, Fresh: time.Hour, Logger: slog.New(slog.DiscardHandler)}
	if got := store.Stats(); got != (affinity.RedisStats{}) {
		t.Errorf("before its use: %+v", got)
	}
	if _, err := store.Swap(t.Context(), "k", "", "a"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if home, err := store.Load(t.Context(), "k"); home != "a" || err != nil {
			t.Fatalf("%q, %v", home, err)
		}
	}
	if _, err := store.Load(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	want := affinity.RedisStats{Memory: 3, Calls: 2}
	if got := store.Stats(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}

	server.Kill()
	for range 3 { // as many as open the circuit
		if _, err := store.Load(t.Context(), "other"); err == nil {
			t.Error("no error without Redis")
		}
	}
	got := store.Stats()
	if !got.Open || got.Calls != 5 || got.Errors != 3 || got.Skipped != 0 {
		t.Errorf("%+v after 3 failures", got)
	}
	await(t, "a call that isn't made", func() bool {
		store.Load(t.Context(), "other")
		return store.Stats().Skipped > 0
	})

	server.Restart(t)
	await(t, "Redis to be asked again", func() bool {
		_, err := store.Load(t.Context(), "other")
		return err == nil
	})
	if store.Stats().Open {
		t.Error("the circuit is open although Redis answers")
	}
}
