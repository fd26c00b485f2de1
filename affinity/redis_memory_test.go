package affinity_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/affinity"
)

// A hook stands between a client and its connections.
type hook func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error

func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { return h(ctx, cmd, next) }
}

func (hook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// fakeRedis answers in place of a server, so that time can be simulated.
type fakeRedis struct {
	calls  atomic.Int32
	answer atomic.Pointer[string] // of the script; nil hangs
	delay  atomic.Int64           // of the answer
}

func newFakeRedis(t *testing.T, answer string) (*fakeRedis, *redis.Client) {
	f := &fakeRedis{}
	f.answer.Store(&answer)
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true})
	client.AddHook(hook(f.process))
	t.Cleanup(func() { client.Close() })
	return f, client
}

func (f *fakeRedis) process(ctx context.Context, cmd redis.Cmder, _ redis.ProcessHook) error {
	f.calls.Add(1)
	answer := f.answer.Load()
	if answer == nil {
		<-ctx.Done()
		cmd.SetErr(ctx.Err())
		return ctx.Err()
	}
	time.Sleep(time.Duration(f.delay.Load()))
	cmd.(interface{ SetVal(any) }).SetVal(*answer)
	return nil
}

// For a pin that is loaded all the time, Redis is asked whenever the pin is no longer
// fresh, and after a quarter of Idle at the latest. That restarts its lifetime.
func TestRedisAsksWhenNoLongerFresh(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		idle, fresh time.Duration
		every       time.Duration
	}{
		{"default", 0, 0, time.Second},
		{"fresh", 0, time.Minute, time.Minute},
		{"a quarter of idle", time.Hour, time.Hour, 15 * time.Minute},
		{"a quarter of a short idle", 2 * time.Second, 0, 500 * time.Millisecond},
		{"a quarter of the default idle", 0, 100 * time.Hour, 6 * time.Hour},
		{"never idle", -1, 100 * time.Hour, 100 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake, client := newFakeRedis(t, "0 b1")
				store := &affinity.Redis{Client: client, Idle: tt.idle, Fresh: tt.fresh}
				const steps, periods = 10, 4
				for range periods * steps {
					if home, err := store.Load(t.Context(), "k"); home != "b1" || err != nil {
						t.Fatalf("Load = %q, %v", home, err)
					}
					time.Sleep(tt.every / steps)
				}
				if n := fake.calls.Load(); n != periods {
					t.Errorf("Redis was asked %d times within %d times %v", n, periods, tt.every)
				}
			})
		})
	}
}

func TestRedisAlwaysAsks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		store *affinity.Redis
		away  string // what a Load returns while Redis is away
	}{
		{&affinity.Redis{Fresh: -1}, "b1"},
		{&affinity.Redis{Size: -1}, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			fake, client := newFakeRedis(t, "0 b1")
			tt.store.Client = client
			for range 5 {
				_, _ = tt.store.Load(t.Context(), "k")
			}
			if n := fake.calls.Load(); n != 5 {
				t.Errorf("5 loads asked Redis %d times", n)
			}
			fake.answer.Store(nil)
			if home, err := tt.store.Load(t.Context(), "k"); home != tt.away || (err == nil) != (home != "") {
				t.Errorf("Redis is away, and Load = %q, %v", home, err)
			}
		})
	}
}

// The pins in the memory have the same lifetimes while Redis is away.
func TestRedisMemoryExpires(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		store *affinity.Redis
		steps []time.Duration // from one load to the next
		want  string          // . there, x gone
	}{
		{"idle", &affinity.Redis{Idle: time.Minute}, []time.Duration{59 * time.Second, 59 * time.Second, time.Minute}, "..x"},
		{"age", &affinity.Redis{Age: 2 * time.Minute}, []time.Duration{59 * time.Second, 2 * time.Second}, ".x"},
		{"never", &affinity.Redis{Idle: -1}, []time.Duration{10000 * time.Hour}, "."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake, client := newFakeRedis(t, fmt.Sprint(time.Minute.Milliseconds(), " b1"))
				tt.store.Client, tt.store.Logger = client, slog.New(slog.DiscardHandler)
				_, _ = tt.store.Load(t.Context(), "k")
				fake.answer.Store(nil)
				got := ""
				for _, step := range tt.steps {
					time.Sleep(step)
					if home, err := tt.store.Load(t.Context(), "k"); err != nil || home != "b1" {
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

// While Redis hangs, a call asks it now and then, and each call ends in time. The
// first call that is answered closes the circuit.
func TestRedisCircuit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		fake, client := newFakeRedis(t, "0 b1")
		store := &affinity.Redis{Client: client, Timeout: 40 * time.Millisecond, Fresh: -1,
			Logger: slog.New(slog.NewTextHandler(&log, nil))}
		_, _ = store.Load(t.Context(), "known")
		fake.answer.Store(nil)
		fake.calls.Store(0)

		const spell = 15 * time.Second
		var wg sync.WaitGroup
		for i := range 10 {
			key, want := "known", "b1"
			if i%2 == 1 {
				key, want = "unknown", ""
			}
			wg.Go(func() {
				for start := time.Now(); time.Since(start) < spell; time.Sleep(time.Millisecond) {
					called := time.Now()
					home, err := store.Load(t.Context(), key)
					if home != want || (err == nil) != (want != "") {
						t.Errorf("Load(%q) = %q, %v", key, home, err)
					}
					if took := time.Since(called); took > 40*time.Millisecond {
						t.Errorf("Load took %v", took)
					}
				}
			})
		}
		wg.Wait()
		// Ten at first, then one each 250 ms beside the 40 ms that it takes.
		if n, probes := fake.calls.Load(), int32(spell/(290*time.Millisecond)); n < probes-3 || n > probes+13 {
			t.Errorf("Redis was asked %d times within that time, want about %d", n, probes)
		}

		back := "0 b2"
		fake.answer.Store(&back)
		start := time.Now()
		for home := ""; home != "b2"; home, _ = store.Load(t.Context(), "unknown") {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(start); took > 300*time.Millisecond {
			t.Errorf("Redis was back for %v before it was noticed", took)
		}
		fake.calls.Store(0)
		for range 10 {
			_, _ = store.Load(t.Context(), "unknown")
		}
		if n := fake.calls.Load(); n != 10 {
			t.Errorf("Redis is back, and %d of 10 calls reach it", n)
		}
		if got := log.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "fails") || !strings.Contains(got, "again") {
			t.Errorf("log:\n%s", got)
		}
	})
}

// A call whose caller gives up early is no failure of Redis.
func TestRedisCircuitIgnoresCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake, client := newFakeRedis(t, "0 b1")
		fake.answer.Store(nil)
		store := &affinity.Redis{Client: client}
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			if _, err := store.Load(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Load: %v", err)
			}
			cancel()
		}
		if n := fake.calls.Load(); n != 10 {
			t.Errorf("Redis was asked %d times by 10 calls", n)
		}
	})
}

// A Swap that fails returns the backend that this replica knows.
func TestRedisSwapsInMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake, client := newFakeRedis(t, "0 b1")
		store := &affinity.Redis{Client: client, Logger: slog.New(slog.DiscardHandler)}
		_, _ = store.Load(t.Context(), "known")
		fake.answer.Store(nil)
		for _, step := range []struct{ key, old, new, now string }{
			{"new", "", "b1", "b1"},
			{"new", "", "b2", "b1"},
			{"known", "", "b2", "b1"},
			{"known", "b2", "b3", "b1"},
			{"known", "b1", "b2", "b2"},
			{"known", "b1", "b3", "b2"},
			{"known", "b2", "b3", "b3"},
			{"known", "b3", "", ""},
			{"known", "", "b4", "b4"},
			{"forgotten", "b1", "b2", "b2"},
		} {
			if now, err := store.Swap(t.Context(), step.key, step.old, step.new); now != step.now || err == nil {
				t.Errorf("Swap(%q, %q, %q) = %q, %v, want %q", step.key, step.old, step.new, now, err, step.now)
			}
			if home, err := store.Load(t.Context(), step.key); home != step.now || err != nil {
				t.Errorf("Load(%q) = %q, %v, want %q", step.key, home, err, step.now)
			}
		}
	})
}

// A late answer of Redis doesn't replace what this replica has stored meanwhile.
func TestRedisLateAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake, client := newFakeRedis(t, "0 b1")
		store := &affinity.Redis{Client: client}
		fake.delay.Store(int64(20 * time.Millisecond))
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = store.Load(t.Context(), "k") })
		time.Sleep(10 * time.Millisecond)
		answer := "0 b2"
		fake.answer.Store(&answer)
		fake.delay.Store(0)
		swap(t, store, "k", "b1", "b2", "b2")
		wg.Wait()
		if home, err := store.Load(t.Context(), "k"); home != "b2" || err != nil {
			t.Errorf("Load = %q, %v, want b2", home, err)
		}
		if n := fake.calls.Load(); n != 3 {
			t.Errorf("Redis was asked %d times, want 3: the answers crossed", n)
		}
		_, _ = store.Load(t.Context(), "k")
		if n := fake.calls.Load(); n != 3 {
			t.Error("and then it isn't known either")
		}
	})
}
