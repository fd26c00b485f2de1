package bus_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/redistest"
)

// A subscriber that is in step gets each message with the ring, and reads nothing.
func TestStreamsRingHasMessage(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client, reads := server.Client(t), server.Client(t)
	var tally commands
	reads.AddHook(&tally)
	s := &bus.Streams{Client: reads, Timeout: patience}
	subs := []*listener{listen(t, s, "a"), listen(t, s, "a", "b")}
	numbers(t, &bus.Streams{Client: client, Timeout: patience}, "a", 1, 300)
	for _, sub := range subs {
		sub.await(t, 300)
		if sub.check(t) > 0 || sub.gaps() > 0 {
			t.Errorf("%d messages, %v", len(sub.numbers), sub.errs)
		}
	}
	if n := tally.reads.Load(); n > 0 {
		t.Errorf("%d reads", n)
	}
	if first := subs[1].ids[0]; first != client.XRange(t.Context(), "limpet:bus:a", "-", "+").Val()[0].ID {
		t.Errorf("the first message has ID %s", first)
	}
}

// What the rings don't have is read, in its place: entries without a ring, entries that are
// too large for it, and what comes while the stream is read.
func TestStreamsHoles(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	s := &bus.Streams{Client: client, Prefix: "p:", Timeout: patience}
	sub := listen(t, s, "a")
	next := 1
	publish := func(size int) {
		t.Helper()
		data := strings.Repeat("0", size) + strconv.Itoa(next) // ParseInt skips the zeros
		if err := s.Publish(t.Context(), "a", []byte(data)); err != nil {
			t.Fatal(err)
		}
		next++
	}
	for range 20 {
		publish(0)
		client.Do(t.Context(), "xadd", "p:a", "*", "d", next) // doesn't ring
		next++
		publish(0)
		publish(20 << 10)
		for range 5 {
			publish(0)
		}
		publish(20 << 10)
	}
	sub.await(t, int64(next-1))
	if sub.check(t) > 0 || sub.gaps() > 0 || len(sub.numbers) != next-1 {
		t.Errorf("%d messages of %d, %v", len(sub.numbers), next-1, sub.errs)
	}
}

// Rings that make no sense, or lie about what was before, lead to a read and to nothing else.
func TestStreamsFalseRings(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	s := &bus.Streams{Client: client, Prefix: "p:", Timeout: patience}
	sub := listen(t, s, "a")
	numbers(t, s, "a", 1, 1)
	sub.await(t, 1)
	for i, ring := range []string{
		"", "\n", "x\n9", "1-1\n9", "99999999999990-1", "99999999999990-2 \n9", "99999999999990-3 x x\n9",
		"99999999999990-4 1-1 1 1 1\n9", "99999999999990-5 " + sub.ids[0] + "\n9", "99999999999990-6 " + sub.ids[0] + " 1 1\n9",
	} {
		client.SPublish(t.Context(), "p:a", ring)
		numbers(t, s, "a", i+2, i+2)
		sub.await(t, int64(i+2))
	}
	if sub.check(t) > 0 || sub.gaps() > 0 {
		t.Errorf("got %s, %v", sub.got(), sub.errs)
	}
}

// The history is bound by bytes, as well as Redis counts them.
func TestStreamsMaxBytes(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	for _, tt := range []struct {
		name     string
		maxBytes int64
		sizes    []int
	}{
		{"small messages", 256 << 10, []int{200}},
		{"large messages", 1 << 20, []int{50 << 10}},
		{"mixed", 1 << 20, []int{10, 100, 30_000, 1000}},
		{"messages above the bound", 64 << 10, []int{100 << 10, 10}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &bus.Streams{Client: client, MaxBytes: tt.maxBytes, Timeout: patience}
			sum, largest := int64(0), int64(0)
			for i := 0; sum < 3*tt.maxBytes; i++ {
				size := tt.sizes[i%len(tt.sizes)]
				if err := b.Publish(t.Context(), tt.name, make([]byte, size)); err != nil {
					t.Fatal(err)
				}
				sum += int64(size)
				used := client.MemoryUsage(t.Context(), "limpet:bus:"+tt.name, 0).Val()
				if largest = max(largest, used); sum < tt.maxBytes/2 && int64(client.XLen(t.Context(), "limpet:bus:"+tt.name).Val()) != int64(i+1) {
					t.Fatalf("trimmed to %d messages after %d bytes", i+1, sum)
				}
			}
			bound := tt.maxBytes*3/2 + int64(2*tt.sizes[0]) // an eighth more is rare, and half more is one in e^32
			if largest > bound || largest < tt.maxBytes/2 {
				t.Errorf("it had %d bytes, want %d at most", largest, bound)
			}
			if n := client.XLen(t.Context(), "limpet:bus:"+tt.name).Val(); n == 0 {
				t.Error("nothing is left")
			}
		})
	}
	if _, err := (&bus.Streams{Client: client, MaxBytes: math.MinInt64}).Subscribe(t.Context(), "a"); err == nil {
		t.Error("no error for a negative MaxBytes")
	}
}

// A subscriber gets a Gap for what MaxBytes has trimmed before it was read.
func TestStreamsMaxBytesGap(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	s := &bus.Streams{Client: client, MaxBytes: 64 << 10, Queue: 1, Timeout: patience}
	sub, err := s.Subscribe(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	const n = 100
	for i := range n {
		if err := s.Publish(t.Context(), "a", fmt.Appendf(nil, "%05000d", i)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, lost := 0, int64(0)
	for got+int(lost) < n {
		_, err := sub.Next(ctx)
		var gap *bus.Gap
		switch {
		case errors.As(err, &gap):
			lost += gap.Lost
		case err != nil:
			t.Fatalf("%v after %d messages and %d lost", err, got, lost)
		default:
			got++
		}
	}
	if lost == 0 || got < 2 {
		t.Errorf("got %d messages, and %d are lost", got, lost)
	}
}

// BenchmarkFanOut has four subscribers, each of which has a client of its own. Redis'
// processor time is that for each message and subscriber.
func BenchmarkFanOut(b *testing.B) {
	server := redistest.Start(b)
	client := server.Client(b)
	const nodes = 4
	for _, make := range []struct {
		name string
		bus  func(*redis.Client) bus.Bus
	}{
		{"Redis", func(c *redis.Client) bus.Bus { return &bus.Redis{Client: c, Queue: 1 << 16} }},
		{"Streams", func(c *redis.Client) bus.Bus { return &bus.Streams{Client: c, Queue: 1 << 16} }},
	} {
		b.Run(make.name, func(b *testing.B) {
			var subs []bus.Subscription
			for range nodes {
				sub, err := make.bus(server.Client(b)).Subscribe(b.Context(), "topic")
				if err != nil {
					b.Fatal(err)
				}
				defer sub.Close()
				subs = append(subs, sub)
			}
			to := make.bus(client)
			before := redisCPU(b, client)
			for b.Loop() {
				if err := to.Publish(b.Context(), "topic", payload); err != nil {
					b.Fatal(err)
				}
				for _, sub := range subs {
					if _, err := sub.Next(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(redisCPU(b, client)-before)/float64(b.N)/nodes, "redis-cpu-ns/node")
		})
	}
}

// All databases of a Redis share its channels, but not its streams: what is published in one
// reaches nobody in another.
func TestStreamsRingOfDatabase(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var buses []*bus.Streams
	var subs []*listener
	for db := range 3 {
		client := redis.NewClient(&redis.Options{Addr: server.Addr, DB: db, ContextTimeoutEnabled: true, DialerRetries: 1})
		t.Cleanup(func() { client.Close() })
		buses = append(buses, &bus.Streams{Client: client, Timeout: patience})
		subs = append(subs, listen(t, buses[db], "a"))
	}
	for db, s := range buses {
		numbers(t, s, "a", 100*db+1, 100*db+10)
	}
	for db, sub := range subs {
		sub.await(t, int64(100*db+10))
		if first := sub.numbers[0]; first != int64(100*db+1) || sub.gaps() > 0 {
			t.Errorf("database %d: %d, %v", db, sub.numbers, sub.errs)
		}
	}
}
