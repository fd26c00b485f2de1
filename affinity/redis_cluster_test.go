//go:build unix

package affinity_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
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

// One node of a Cluster is lost under load. Its keys are served from memory and it
// gets few commands. The keys of the other nodes are served as before.
func TestRedisClusterLosesANode(t *testing.T) {
	t.Parallel()
	stop := func(s *redistest.Server) { s.Signal(t, syscall.SIGSTOP) }
	resume := func(s *redistest.Server) { s.Signal(t, syscall.SIGCONT) }
	for _, tt := range []struct {
		name       string
		away, back func(lost, replica *redistest.Server)
	}{
		{"killed and restarted",
			func(lost, _ *redistest.Server) { lost.Kill() },
			func(lost, _ *redistest.Server) { lost.Restart(t) }},
		{"stopped",
			func(lost, _ *redistest.Server) { stop(lost) },
			func(lost, _ *redistest.Server) { resume(lost) }},
		{"replaced by its replica",
			func(lost, replica *redistest.Server) { stop(replica); lost.Kill() },
			func(_, replica *redistest.Server) { resume(replica) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cluster := redistest.StartCluster(t)
			lost := cluster.Nodes[1]
			var replica *redistest.Server
			if strings.Contains(tt.name, "replica") {
				replica = cluster.AddReplica(t, lost)
			}
			client := cluster.Client(t)
			// On a slow machine too, no key of a living node may fail by its time limit.
			store := &affinity.Redis{Client: client, Timeout: time.Second, Fresh: -1, Logger: slog.New(slog.DiscardHandler)}
			var ofLost, ofOthers []string
			for i := 0; len(ofLost) < 8 || len(ofOthers) < 4; i++ {
				key := fmt.Sprint("client-", i)
				swap(t, store, key, "", "b0", "b0")
				if cluster.Primary(t, "limpet:pin:"+key) == lost {
					ofLost = append(ofLost, key)
				} else {
					ofOthers = append(ofOthers, key)
				}
			}
			var sent atomic.Int32 // to the lost node, without what go-redis sends again
			client.AddHook(hook(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
				if len(cmd.Args()) > 3 && slices.Contains(ofLost, strings.TrimPrefix(fmt.Sprint(cmd.Args()[3]), "limpet:pin:")) {
					sent.Add(1)
				}
				return next(ctx, cmd)
			}))
			use := func(key string, n int, answers bool) {
				old, new := fmt.Sprint("b", n), fmt.Sprint("b", n+1)
				if home, err := store.Load(t.Context(), key); home != old || err != nil {
					t.Errorf("Load(%q) = %q, %v, want %q", key, home, err, old)
				}
				if now, err := store.Swap(t.Context(), key, old, new); now != new || (err == nil) != answers {
					t.Errorf("Swap(%q, %q, %q) = %q, %v; its node answers: %v", key, old, new, now, err, answers)
				}
			}

			tt.away(lost, replica)
			start := time.Now()
			const calls = 200
			var unlucky, lucky sync.WaitGroup
			for _, key := range ofLost {
				unlucky.Go(func() {
					for n := range calls {
						use(key, n, false)
					}
				})
			}
			ctx, done := context.WithCancel(t.Context())
			for _, key := range ofOthers {
				lucky.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						use(key, n, true)
					}
				})
			}
			unlucky.Wait()
			done()
			lucky.Wait()
			if n, most := int(sent.Load()), 3*len(ofLost)+int(time.Since(start)/(250*time.Millisecond)); n > most {
				t.Errorf("%d commands were sent to the lost node, want %d at most", n, most)
			}
			if got := store.Stats(); !got.Open || got.Errors == 0 || got.Skipped == 0 {
				t.Errorf("a node is lost, but %+v", got)
			}

			tt.back(lost, replica)
			cluster.Await(t)
			admin := cluster.Client(t)
			for _, key := range ofLost {
				await(t, "the pin to be in Redis", func() bool {
					home := fmt.Sprint("b", calls)
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

// A slot moves to another node under load, and no call fails.
func TestRedisClusterMovesASlot(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	store := &affinity.Redis{Client: cluster.Client(t), Timeout: patience, Fresh: -1}
	const key = "limpet:pin:k"
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		home := ""
		for n := 0; ctx.Err() == nil; n++ {
			next := fmt.Sprint("b", n)
			swap(t, store, "k", home, next, next)
			home = next
		}
	})
	for i := range 2 * len(cluster.Nodes) {
		to := cluster.Nodes[i%len(cluster.Nodes)]
		cluster.Move(t, key, to)
		if cluster.Primary(t, key) != to {
			t.Error("it wasn't moved")
		}
	}
	stop()
	wg.Wait()
}
