//go:build unix

package affinity_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/internal/redistest"
)

// underLoad calls a store all the time until the test of step is over. It calls Load
// for known clients, whose homes don't change, and Swap for new ones, which it
// returns. It checks that no Load fails, that each Swap returns what was to be
// stored, and that no call waits long, whether Redis is there or not. more waits for
// n calls of each.
func underLoad(t *testing.T, store affinity.Store, homes map[string]string, step func(more func(n int64))) (newcomers []string) {
	t.Helper()
	const workers = 8
	const bound = 100 * 50 * time.Millisecond // as in TestRedisAway
	var keys []string
	for key := range homes {
		keys = append(keys, key)
	}
	var calls atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for w := range workers {
		wg.Go(func() {
			pace := time.NewTicker(2 * time.Millisecond)
			defer pace.Stop()
			for n := w; ctx.Err() == nil; n++ {
				<-pace.C
				key := keys[n%len(keys)]
				called := time.Now()
				got, err := store.Load(t.Context(), key)
				if took := time.Since(called); got != homes[key] || err != nil || took > bound {
					t.Errorf("Load(%q) = %q, %v after %v, want %q", key, got, err, took, homes[key])
				}
				key = fmt.Sprint("new-", w, "-", n)
				called = time.Now()
				got, err = store.Swap(t.Context(), key, "", "b1")
				if took := time.Since(called); got != "b1" || took > bound {
					t.Errorf("Swap = %q, %v after %v, want b1", got, err, took)
				}
				mu.Lock()
				newcomers = append(newcomers, key)
				mu.Unlock()
				calls.Add(1)
			}
		})
	}
	step(func(n int64) {
		t.Helper()
		goal := calls.Load() + n
		await(t, "calls", func() bool { return calls.Load() >= goal })
	})
	stop()
	wg.Wait()
	return newcomers
}

// A primary dies under load and its replica takes over.
func TestRedisSentinelFailover(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		away func(*redistest.Server)
	}{
		{"killed", func(s *redistest.Server) { s.Kill() }},
		{"stopped", func(s *redistest.Server) { s.Signal(t, syscall.SIGSTOP) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			set := redistest.StartSentinel(t)
			store := &affinity.Redis{Client: set.Client(t), Fresh: -1, Logger: slog.New(slog.DiscardHandler)}
			homes := make(map[string]string)
			for i := range 50 {
				key, home := fmt.Sprint("client-", i), fmt.Sprint("b", i%3)
				homes[key] = home
				await(t, "Redis", func() bool {
					now, err := store.Swap(t.Context(), key, "", home)
					return err == nil || now != home
				})
			}
			newcomers := underLoad(t, store, homes, func(more func(int64)) {
				more(100)
				// One Sentinel alone must not fail over: this goes on until all
				// have had enough of it.
				for _, s := range set.Sentinels[:2] {
					s.Kill()
				}
				tt.away(set.Primary)
				more(1000)
				for _, s := range set.Sentinels[:2] {
					s.Restart(t)
				}
				set.AwaitFailover(t)
				await(t, "the new primary to be noticed", func() bool {
					_, err := store.Load(t.Context(), "nobody")
					return err == nil
				})
				more(100)
			})
			admin := set.Primary.Client(t)
			for _, key := range newcomers {
				homes[key] = "b1"
			}
			for key, home := range homes {
				// A call may still fail by its time limit.
				await(t, "the pin to be in Redis", func() bool {
					if got, err := store.Load(t.Context(), key); got != home || err != nil {
						t.Fatalf("Load(%q) = %q, %v, want %q", key, got, err, home)
					}
					value, err := admin.Get(t.Context(), "limpet:pin:"+key).Result()
					return err == nil && strings.HasSuffix(value, " "+home)
				})
			}
		})
	}
}
