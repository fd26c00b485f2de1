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

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/internal/redistest"
)

// Redis goes away under load and comes back. No Load of a known client fails or
// moves it, no call waits long, Redis gets few commands meanwhile, and it has what
// was swapped meanwhile afterwards.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	const clients, workers = 50, 8
	// A call without a time limit would wait for as long as Redis is away, which
	// is until all workers have made their calls.
	const bound = 100 * 50 * time.Millisecond
	for _, tt := range []struct {
		name       string
		answers    bool // at times, so that the circuit stays closed
		away, back func(*testing.T, *redistest.Server, *redis.Client)
	}{
		{"killed and restarted", false,
			func(_ *testing.T, s *redistest.Server, _ *redis.Client) { s.Kill() },
			func(t *testing.T, s *redistest.Server, _ *redis.Client) { s.Restart(t) }},
		{"stopped", false,
			func(t *testing.T, s *redistest.Server, _ *redis.Client) { s.Signal(t, syscall.SIGSTOP) },
			func(t *testing.T, s *redistest.Server, _ *redis.Client) { s.Signal(t, syscall.SIGCONT) }},
		{"paused", false,
			func(t *testing.T, _ *redistest.Server, admin *redis.Client) {
				if err := admin.ClientPause(t.Context(), 3*time.Second).Err(); err != nil {
					t.Error(err)
				}
			},
			func(*testing.T, *redistest.Server, *redis.Client) {}},
		{"asleep", false,
			func(t *testing.T, _ *redistest.Server, admin *redis.Client) {
				// The answer comes after the sleep: don't wait for it.
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				_ = admin.Do(ctx, "DEBUG", "SLEEP", "3").Err()
			},
			func(*testing.T, *redistest.Server, *redis.Client) {}},
		{"out of memory", true, // it loads and doesn't swap
			func(t *testing.T, _ *redistest.Server, admin *redis.Client) {
				if err := admin.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
					t.Error(err)
				}
			},
			func(t *testing.T, _ *redistest.Server, admin *redis.Client) {
				if err := admin.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
					t.Error(err)
				}
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			admin := server.Client(t)
			var sent atomic.Int32 // commands, without what go-redis sends again
			client := server.Client(t)
			client.AddHook(hook(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
				sent.Add(1)
				return next(ctx, cmd)
			}))
			store := &affinity.Redis{Client: client, Fresh: -1, Logger: slog.New(slog.DiscardHandler)}

			key := func(i int) string { return fmt.Sprint("client-", i) }
			home := func(i int) string { return fmt.Sprint("b", i%3) }
			for i := range clients {
				await(t, "Redis", func() bool {
					now, err := store.Swap(t.Context(), key(i), "", home(i))
					return err == nil || now != home(i)
				})
			}

			tt.away(t, server, admin)
			sent.Store(0)
			start := time.Now()
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					pace := time.NewTicker(time.Millisecond)
					defer pace.Stop()
					for n := w; time.Since(start) < 1500*time.Millisecond; n++ {
						<-pace.C
						i := n % clients
						called := time.Now()
						got, err := store.Load(t.Context(), key(i))
						if took := time.Since(called); took > bound {
							t.Errorf("Load took %v", took)
						}
						if got != home(i) || err != nil {
							t.Errorf("Load(%q) = %q, %v, want %q", key(i), got, err, home(i))
						}
						called = time.Now()
						got, err = store.Swap(t.Context(), fmt.Sprint("new-", w), "", "b1")
						if took := time.Since(called); took > bound {
							t.Errorf("Swap took %v", took)
						}
						if got != "b1" || err == nil {
							t.Errorf("Swap = %q, %v, want b1 and an error", got, err)
						}
					}
				})
			}
			wg.Wait()
			// The calls under way when Redis went away, and one every 250 ms.
			if n, most := int(sent.Load()), 3*workers+int(time.Since(start)/(250*time.Millisecond)); n > most && !tt.answers {
				t.Errorf("%d commands were sent meanwhile, want %d at most", n, most)
			}
			if now, err := store.Swap(t.Context(), key(0), home(0), "moved"); now != "moved" || err == nil {
				t.Errorf("Swap = %q, %v", now, err)
			}

			tt.back(t, server, admin)
			await(t, "Redis to be noticed", func() bool {
				_, err := store.Load(t.Context(), "nobody")
				return err == nil
			})
			want := map[string]string{key(0): "moved"}
			for i := 1; i < clients; i++ {
				want[key(i)] = home(i)
			}
			for w := range workers {
				want[fmt.Sprint("new-", w)] = "b1"
			}
			for key, home := range want {
				// A call may still find a connection that was broken meanwhile.
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

// Two replicas lose Redis at different times, and agree on one home again afterwards.
func TestRedisReplicasMeetAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var barred atomic.Bool // what a sends
	client := server.Client(t)
	client.AddHook(hook(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
		if !barred.Load() {
			return next(ctx, cmd)
		}
		cmd.SetErr(errStore)
		return errStore
	}))
	b := &affinity.Redis{Client: server.Client(t), Timeout: patience, Fresh: -1}

	for _, tt := range []struct {
		name   string
		before string   // the home that both know
		alone  []string // where a moves the client while it has no Redis
		byB    []string // meanwhile; "" is deleted
		byA    []string // once a has Redis again, without a Load before
		want   string
	}{
		{"moved by a", "b1", []string{"b2"}, nil, nil, "b2"},
		{"moved twice by a", "b1", []string{"b2", "b3"}, nil, nil, "b3"},
		{"moved on by a", "b1", []string{"b2"}, nil, []string{"b4"}, "b4"},
		{"deleted by a", "b1", []string{""}, nil, nil, ""},
		{"moved by both", "b1", []string{"b2"}, []string{"b3"}, nil, "b3"},
		{"moved by both to one", "b1", []string{"b2"}, []string{"b2"}, nil, "b2"},
		{"moved by b and back", "b1", []string{"b2"}, []string{"b3", "b1"}, nil, "b2"},
		{"deleted by b", "b1", []string{"b2"}, []string{""}, nil, ""},
		{"new", "", []string{"b1"}, nil, nil, "b1"},
		{"new, moved on", "", []string{"b1"}, nil, []string{"b2"}, "b2"},
		{"new at both", "", []string{"b1"}, []string{"b2"}, nil, "b2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &affinity.Redis{Client: client, Timeout: patience, Fresh: -1}
			move := func(s affinity.Store, from string, to []string, fails bool) (last string) {
				for _, next := range to {
					if now, err := s.Swap(t.Context(), tt.name, from, next); now != next || (err != nil) != fails {
						t.Errorf("Swap(%q, %q) = %q, %v", from, next, now, err)
					}
					from = next
				}
				return from
			}
			if tt.before != "" {
				swap(t, b, tt.name, "", tt.before, tt.before)
			}
			if home, err := a.Load(t.Context(), tt.name); home != tt.before || err != nil {
				t.Fatal(home, err)
			}
			barred.Store(true)
			last := move(a, tt.before, tt.alone, true)
			barred.Store(false)
			move(b, tt.before, tt.byB, false)
			move(a, last, tt.byA, false)
			for _, s := range []affinity.Store{a, b} {
				if home, err := s.Load(t.Context(), tt.name); home != tt.want || err != nil {
					t.Errorf("Load = %q, %v, want %q", home, err, tt.want)
				}
			}
		})
	}
}

// Redis may have done a Swap that it didn't answer. The client doesn't move back
// either way.
func TestRedisTellsNoAnswer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	const lost, unanswered = 1, 2
	var state atomic.Int32
	client := server.Client(t)
	client.AddHook(hook(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
		is := state.Load()
		if is != lost {
			if err := next(ctx, cmd); err != nil || is == 0 {
				return err
			}
		}
		cmd.SetErr(errStore)
		return errStore
	}))
	b := &affinity.Redis{Client: server.Client(t), Timeout: patience, Fresh: -1}
	type step struct {
		state int32
		to    string // "" is a Load
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"swap", []step{{unanswered, "b2"}}},
		{"swap, then another", []step{{unanswered, "b2"}, {lost, "b3"}}},
		{"swap, then another once it is back", []step{{unanswered, "b2"}, {lost, "b3"}, {0, "b4"}}},
		{"two swaps", []step{{unanswered, "b2"}, {unanswered, "b3"}, {lost, "b4"}}},
		{"load", []step{{lost, "b2"}, {unanswered, ""}, {lost, "b3"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &affinity.Redis{Client: client, Timeout: patience, Fresh: -1, Logger: slog.New(slog.DiscardHandler)}
			home := "b1"
			swap(t, a, tt.name, "", home, home)
			for _, s := range tt.steps {
				state.Store(s.state)
				if s.to == "" {
					_, _ = a.Load(t.Context(), tt.name)
				} else if now, err := a.Swap(t.Context(), tt.name, home, s.to); now != s.to || (err == nil) != (s.state == 0) {
					t.Errorf("Swap(%q, %q) = %q, %v", home, s.to, now, err)
				} else {
					home = s.to
				}
			}
			state.Store(0)
			await(t, "Redis to know", func() bool {
				if got, err := a.Load(t.Context(), tt.name); got != home || err != nil {
					t.Fatalf("Load = %q, %v, want %q", got, err, home)
				}
				got, _ := b.Load(t.Context(), tt.name)
				return got == home
			})
		})
	}
}
