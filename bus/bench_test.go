package bus_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/process"
	"github.com/limpet-go/limpet/internal/redistest"
)

var payload = make([]byte, 200)

func BenchmarkMemory(b *testing.B) {
	m := &bus.Memory{}
	sub, _ := m.Subscribe(b.Context(), "topic")
	defer sub.Close()
	b.ReportAllocs()
	for b.Loop() {
		_ = m.Publish(b.Context(), "topic", payload)
		if _, err := sub.Next(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// A transport is a way from a publisher to a subscriber.
type transport struct {
	name    string
	publish func(context.Context) error
	next    func(context.Context) error
}

// transports returns those over Redis, go-redis alone first. They end with the
// benchmark.
func transports(b *testing.B) []transport {
	client := redistest.Start(b).Client(b)
	raw := client.Subscribe(b.Context(), "raw")
	if _, err := raw.Receive(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { raw.Close() })
	all := []transport{{
		"go-redis",
		func(ctx context.Context) error { return client.Publish(ctx, "raw", payload).Err() },
		func(ctx context.Context) error { _, err := raw.ReceiveMessage(ctx); return err },
	}}
	for _, t := range []struct {
		name string
		bus  bus.Bus
	}{
		{"Redis", &bus.Redis{Client: client, Prefix: "bus:", Queue: 1 << 16}},
		{"Streams", &bus.Streams{Client: client, Queue: 1 << 16}},
	} {
		sub, err := t.bus.Subscribe(b.Context(), "topic")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { sub.Close() })
		all = append(all, transport{
			t.name,
			func(ctx context.Context) error { return t.bus.Publish(ctx, "topic", payload) },
			func(ctx context.Context) error { _, err := sub.Next(ctx); return err },
		})
	}
	return all
}

// BenchmarkLatency is from before Publish until the message is there, one at a
// time. The processor's time is that of this process, without Redis.
func BenchmarkLatency(b *testing.B) {
	for _, t := range transports(b) {
		b.Run(t.name, func(b *testing.B) {
			b.ReportAllocs()
			before := process.CPU()
			for b.Loop() {
				if err := t.publish(b.Context()); err != nil {
					b.Fatal(err)
				}
				if err := t.next(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(process.CPU()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkBurst has eight publishers, and one subscriber.
func BenchmarkBurst(b *testing.B) {
	for _, t := range transports(b) {
		b.Run(t.name, func(b *testing.B) {
			b.ReportAllocs()
			before := process.CPU()
			const publishers = 8
			slots := make(chan struct{}, 1024) // fewer than fit into the queue
			work := make(chan struct{}, publishers)
			for range publishers {
				go func() {
					for range work {
						if err := t.publish(context.Background()); err != nil {
							b.Error(err)
						}
					}
				}()
			}
			received := make(chan struct{})
			go func() {
				defer close(received)
				for range slots {
					if err := t.next(context.Background()); err != nil {
						b.Error(err)
					}
				}
			}()
			for b.Loop() {
				slots <- struct{}{}
				work <- struct{}{}
			}
			close(work)
			close(slots)
			<-received
			b.ReportMetric(float64(process.CPU()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkReceive receives what is published by a pipeline of 100, which costs
// the same for both.
func BenchmarkReceive(b *testing.B) {
	client := redistest.Start(b).Client(b)
	raw := client.Subscribe(b.Context(), "raw")
	defer raw.Close()
	if _, err := raw.Receive(b.Context()); err != nil {
		b.Fatal(err)
	}
	sub, err := (&bus.Redis{Client: client}).Subscribe(b.Context(), "bus")
	if err != nil {
		b.Fatal(err)
	}
	defer sub.Close()
	for _, to := range []struct {
		name, channel string
		next          func() error
	}{
		{"go-redis", "raw", func() error { _, err := raw.ReceiveMessage(b.Context()); return err }},
		{"Redis", "bus", func() error { _, err := sub.Next(b.Context()); return err }},
	} {
		b.Run(to.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = client.Pipelined(b.Context(), func(p redis.Pipeliner) error {
					for range 100 {
						p.Publish(b.Context(), to.channel, payload)
					}
					return nil
				})
				for range 100 {
					if err := to.next(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkPublish has one publisher, or 16, and no subscriber. The processor's times are
// those of this process and of Redis, for each message.
func BenchmarkPublish(b *testing.B) {
	server := redistest.Start(b)
	client := server.Client(b)
	pubsub, streams := &bus.Redis{Client: client}, &bus.Streams{Client: client}
	for _, to := range []struct {
		name    string
		publish func(context.Context) error
	}{
		{"go-redis", func(ctx context.Context) error { return client.Publish(ctx, "topic", payload).Err() }},
		{"Redis", func(ctx context.Context) error { return pubsub.Publish(ctx, "topic", payload) }},
		{"Streams", func(ctx context.Context) error { return streams.Publish(ctx, "topic", payload) }},
	} {
		for _, publishers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d", to.name, publishers), func(b *testing.B) {
				b.ReportAllocs()
				var left atomic.Int64
				left.Store(int64(b.N))
				var wg sync.WaitGroup
				own, redis := process.CPU(), redisCPU(b, client)
				for range publishers {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if err := to.publish(b.Context()); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(process.CPU()-own)/float64(b.N), "cpu-ns/op")
				b.ReportMetric(float64(redisCPU(b, client)-redis)/float64(b.N), "redis-cpu-ns/op")
			})
		}
	}
}

// redisCPU returns the processor time that a Redis has used.
func redisCPU(b *testing.B, client *redis.Client) (sum time.Duration) {
	b.Helper()
	info, err := client.Info(context.Background(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_user" || name == "used_cpu_sys" {
			seconds, _ := strconv.ParseFloat(value, 64)
			sum += time.Duration(seconds * float64(time.Second))
		}
	}
	return sum
}
