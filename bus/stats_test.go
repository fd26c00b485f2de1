package bus_test

import (
	"context"
	"testing"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/redistest"
)

func TestMemoryStats(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		closeSlow bool
		want      bus.Stats
	}{
		{"drops", false, bus.Stats{
			Published: 5, PublishErrors: 1, Delivered: 10, Dropped: 6, Topics: 2, Subscriptions: 2, Queued: 4, LongestQueue: 2,
		}},
		{"closes", true, bus.Stats{Published: 5, PublishErrors: 1, Delivered: 4, ClosedSlow: 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &bus.Memory{Queue: 2, CloseSlow: tt.closeSlow}
			for _, topics := range [][]string{{"a", "b"}, {"a"}} {
				sub, err := m.Subscribe(t.Context(), topics...)
				if err != nil {
					t.Fatal(err)
				}
				defer sub.Close()
			}
			numbers(t, m, "a", 1, 5)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			m.Publish(ctx, "a", nil)
			if got := m.Stats(); got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

// The figures say that Redis is away, and that it is back.
func TestRedisStats(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	network := newProxy(t, server.Addr)
	client := network.client(t)
	for _, tt := range []struct {
		name string
		bus  interface {
			bus.Bus
			Stats() bus.Stats
		}
	}{
		{"Redis", &bus.Redis{Client: client, Timeout: time.Second}},
		{"Streams", &bus.Streams{Client: client, Timeout: time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.bus
			if got := b.Stats(); got != (bus.Stats{}) {
				t.Errorf("before its use: %+v", got)
			}
			subs := []*listener{listen(t, b, "a", "b"), listen(t, b, "a")}
			numbers(t, b, "a", 1, 5)
			for _, sub := range subs {
				sub.await(t, 5)
			}
			got := b.Stats()
			if n := calls(got.PublishTimes); n != 5 || got.PublishTimes.Sum <= 0 {
				t.Errorf("%d calls of Publish took %v", n, got.PublishTimes.Sum)
			}
			got.PublishTimes = bus.Durations{}
			if want := (bus.Stats{Published: 5, Delivered: 10, Topics: 2, Subscriptions: 2}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}

			network.refuse(true)
			network.cut()
			await(t, "the topics to be away", func() bool { return b.Stats().Away == 2 })
			if err := b.Publish(t.Context(), "a", nil); err == nil {
				t.Error("Publish didn't fail")
			}
			network.refuse(false)
			await(t, "the topics to be back", func() bool { return b.Stats().Away == 0 })
			if got := b.Stats(); got.PublishErrors != 1 || got.Topics != 2 || got.Disconnects != 1 || calls(got.PublishTimes) != 6 {
				t.Errorf("%+v after the break", got)
			}
			if _, ok := b.(*bus.Redis); ok { // with Streams nothing was lost
				await(t, "a Gap for each subscription", func() bool { return b.Stats().Gaps == 2 })
			}
			for _, sub := range subs {
				sub.Close()
			}
			await(t, "the topics to be gone", func() bool { return b.Stats().Topics == 0 })
			if got := b.Stats(); got.Subscriptions != 0 {
				t.Errorf("%d subscriptions are open", got.Subscriptions)
			}
		})
	}
}

// calls returns the number of calls that d has counted.
func calls(d bus.Durations) (n int64) {
	for _, c := range d.Counts {
		n += c
	}
	return n
}

// The queue of each subscription counts, with its Gaps, until it is closed.
func TestQueueStats(t *testing.T) {
	t.Parallel()
	m := &bus.Memory{Queue: 10}
	var subs []bus.Subscription
	for _, topics := range [][]string{{"a"}, {"a", "b"}, {}} {
		sub, err := m.Subscribe(t.Context(), topics...)
		if err != nil {
			t.Fatal(err)
		}
		subs = append(subs, sub)
	}
	check := func(what string, subscriptions, queued, longest int) {
		t.Helper()
		got := m.Stats()
		if got.Subscriptions != subscriptions || got.Queued != queued || got.LongestQueue != longest {
			t.Errorf("%s: %+v", what, got)
		}
	}
	numbers(t, m, "a", 1, 3)
	numbers(t, m, "b", 1, 4)
	check("messages wait", 3, 10, 7)
	if _, err := subs[1].Next(t.Context()); err != nil {
		t.Error(err)
	}
	check("one was read", 3, 9, 6)
	subs[1].Remove(t.Context(), "a", "b")
	check("its topics were removed", 3, 9, 6)
	for range 2 {
		subs[1].Close()
	}
	check("it was closed", 2, 3, 3)
}

// A Gap of a history that was trimmed is counted.
func TestStreamsStatsGap(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	s := &bus.Streams{Client: client, MaxLen: 100, Queue: 10, Timeout: patience}
	sub, err := s.Subscribe(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	numbers(t, s, "a", 1, 1000)
	listenTo(t, sub).await(t, 1000)
	if got := s.Stats(); got.Gaps != 1 || got.Dropped != 0 || got.Delivered == 0 || got.Delivered >= 1000 {
		t.Errorf("%+v", got)
	}
}
