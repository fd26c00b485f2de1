package affinity_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/internal/redistest"
)

// Swap, and the Load of a store without memory, are linearizable: all replicas see
// the calls in one order, even though their connections break all the time.
func TestRedisIsLinearizable(t *testing.T) {
	t.Parallel()
	// Each call that was cut may have happened at any later moment, or not, and
	// the check's work grows exponentially with their number: connections break
	// once a round, and there are many rounds.
	const rounds, workers, calls = 150, 6, 12
	server := redistest.Start(t)
	admin := server.Client(t)
	var replicas []*affinity.Redis
	for range 3 {
		replicas = append(replicas, &affinity.Redis{
			Client: server.Client(t), Timeout: patience, Size: -1, Logger: slog.New(slog.DiscardHandler),
		})
	}

	start := time.Now()
	var won, failed int
	for round := range rounds {
		key := fmt.Sprint("key-", round)
		var mu sync.Mutex
		var history []storeCall
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				store, seen := replicas[w%len(replicas)], ""
				for n := range calls {
					if w == 0 && n == calls/2 {
						admin.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes")
					}
					c := storeCall{swap: rand.IntN(3) > 0, old: seen}
					switch rand.IntN(8) {
					case 0: // delete
					case 1:
						c.new = "common" // so that a value comes back
					default:
						c.new = fmt.Sprintf("b%d.%d", w, n)
					}
					c.begin = time.Since(start)
					var err error
					if c.swap {
						c.now, err = store.Swap(t.Context(), key, c.old, c.new)
					} else {
						c.now, err = store.Load(t.Context(), key)
					}
					c.end, c.cut = time.Since(start), err != nil
					if err == nil {
						seen = c.now
					} else if !c.swap {
						continue
					}
					mu.Lock()
					history = append(history, c)
					if err != nil {
						failed++
					} else if c.swap && c.now == c.new {
						won++
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if !linearizable(history) {
			t.Errorf("round %d: no order of these calls gives these results", round)
			for _, c := range history {
				t.Logf("%v to %v: %v", c.begin, c.end, c)
			}
			return
		}
	}
	t.Logf("%d swaps won, %d were cut", won, failed)
	if won < rounds || failed < rounds/10 {
		t.Errorf("%d swaps won and %d were cut: that shows nothing", won, failed)
	}
}
