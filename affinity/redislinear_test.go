package affinity_test

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/internal/redistest"
)

// A storeCall is a Swap, or a Load if it isn't one, and what came of it.
type storeCall struct {
	swap     bool
	old, new string
}

type storeResult struct {
	now string
	err bool // of a Swap: it may or may not have happened, now or later
}

// String describes the call for who reads a history.
func (c storeCall) String() string {
	if c.swap {
		return fmt.Sprintf("Swap(%q, %q)", c.old, c.new)
	}
	return "Load"
}

// storeModel is one key of a store; its state is the backend.
var storeModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{""} },
	Step: func(state, input, output any) []any {
		in, out, next := input.(storeCall), output.(storeResult), state
		if in.swap && state == in.old {
			next = in.new
		}
		switch {
		case out.err:
			return []any{state, next}
		case out.now == next:
			return []any{next}
		}
		return nil
	},
}

// Swap and the Load of a store without memory are linearizable: all replicas
// see one order of what happens, though their connections break all the time.
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
		var history []porcupine.Operation
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				store, seen := replicas[w%len(replicas)], ""
				for n := range calls {
					if w == 0 && n == calls/2 {
						admin.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes")
					}
					in := storeCall{swap: rand.IntN(3) > 0, old: seen}
					switch rand.IntN(8) {
					case 0: // delete
					case 1:
						in.new = "common" // so that a value comes back
					default:
						in.new = fmt.Sprintf("b%d.%d", w, n)
					}
					op := porcupine.Operation{ClientId: w, Call: int64(time.Since(start))}
					var now string
					var err error
					if in.swap {
						now, err = store.Swap(t.Context(), key, in.old, in.new)
					} else {
						now, err = store.Load(t.Context(), key)
					}
					op.Input, op.Output, op.Return = in, storeResult{now, err != nil}, int64(time.Since(start))
					if err == nil {
						seen = now
					} else if !in.swap {
						continue
					} else {
						op.Return = math.MaxInt64
					}
					mu.Lock()
					history = append(history, op)
					if err != nil {
						failed++
					} else if in.swap && now == in.new {
						won++
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if result := porcupine.CheckOperationsTimeout(storeModel.ToModel(), history, patience); result != porcupine.Ok {
			t.Errorf("round %d: %v", round, result)
			for _, op := range history {
				t.Logf("%d to %d, worker %d: %v = %+v", op.Call, op.Return, op.ClientId, op.Input, op.Output)
			}
			return
		}
	}
	t.Logf("%d swaps won, %d were cut", won, failed)
	if won < rounds || failed < rounds/10 {
		t.Errorf("%d swaps won and %d were cut: that shows nothing", won, failed)
	}
}
