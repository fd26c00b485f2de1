package bus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/redistest"
)

// Connections of publishers that share pipelines are killed, again and again. Each message
// whose Publish returned no error has arrived once and in order, and Streams publishes all.
func TestRedisCrowdUnderFaults(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for _, tt := range []struct {
		name string
		bus  func(c *redis.Client, timeout time.Duration) bus.Bus
		once bool // a connection that breaks costs those messages that are under way
	}{
		{"Redis", func(c *redis.Client, timeout time.Duration) bus.Bus {
			return &bus.Redis{Client: c, Queue: 1 << 16, Timeout: timeout}
		}, true},
		{"Streams", func(c *redis.Client, timeout time.Duration) bus.Bus {
			return &bus.Streams{Client: c, Queue: 1 << 16, Timeout: timeout}
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			network := newProxy(t, server.Addr)
			admin := server.Client(t)
			sub, err := tt.bus(server.Client(t), patience).Subscribe(t.Context(), tt.name)
			if err != nil {
				t.Fatal(err)
			}
			defer sub.Close()
			to := tt.bus(network.client(t), patience)

			const publishers = 16
			var published, failed [publishers][]int
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer stop()
			for p := range publishers {
				wg.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						if err := to.Publish(context.Background(), tt.name, fmt.Appendf(nil, "%d %d", p, i)); err != nil {
							failed[p] = append(failed[p], i)
						} else {
							published[p] = append(published[p], i)
						}
						time.Sleep(rand.N(2 * time.Millisecond))
					}
				})
			}
			for i := range 20 {
				time.Sleep(20 * time.Millisecond)
				if i%2 == 0 {
					network.cut() // some before Redis has the message, some before it has answered
				} else {
					admin.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes")
				}
			}
			stop()
			wg.Wait()
			if err := to.Publish(t.Context(), tt.name, []byte("end")); err != nil {
				t.Fatal(err)
			}
			var got [publishers][]int
			for {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				m, err := sub.Next(ctx)
				cancel()
				if err != nil {
					t.Fatal(err)
				}
				if string(m.Data) == "end" {
					break
				}
				var p, i int
				fmt.Sscan(string(m.Data), &p, &i)
				got[p] = append(got[p], i)
			}
			lost, errors := 0, 0
			for p := range publishers {
				errors += len(failed[p])
				if tt.once { // one whose Publish has failed may arrive anywhere
					got[p] = slices.DeleteFunc(got[p], func(i int) bool { return slices.Contains(failed[p], i) })
				}
				if !slices.IsSorted(got[p]) || len(slices.Compact(slices.Clone(got[p]))) < len(got[p]) {
					t.Errorf("publisher %d: got %v", p, got[p])
				}
				lost += len(published[p]) - len(got[p])
			}
			t.Logf("%d errors", errors)
			if lost > 0 || errors > 0 && !tt.once {
				t.Errorf("%d messages are lost, and %d were not published", lost, errors)
			}
		})
	}
}
