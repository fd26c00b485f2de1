package socketio

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
)

// A double is a link without Redis, for tests that are about time.
type double struct {
	bus bus.Memory

	mu       sync.Mutex
	away     bool
	channels map[string]int // subscribers
	subs     map[*doubleSub]bool
	stream   []redis.XMessage
	trimmed  int    // entries that are gone
	removing func() // before each Remove
	half     bool   // a part of it is back: there is a Gap for other topics, once
}

var errAway = errors.New("away")

func (d *double) set(away bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = away
	for s := range d.subs {
		s.broken = s.broken || away
		s.wake()
	}
}

func (d *double) send(ctx context.Context, f *frame) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away {
		return errAway
	}
	if f.entry == nil {
		return d.bus.Publish(ctx, f.channel, f.data)
	}
	values := make(map[string]any)
	for pair := range slices.Chunk(f.entry, 2) {
		values[pair[0]] = pair[1]
	}
	d.stream = append(d.stream, redis.XMessage{ID: fmt.Sprint(len(d.stream) + 1), Values: values})
	return nil
}

func (d *double) sendAll(frames []frame, failed func(error)) {
	for i := range frames {
		if err := d.send(context.Background(), &frames[i]); err != nil {
			failed(err)
		}
	}
}

func (d *double) subscribers(_ context.Context, channel string, _ bool) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away {
		return 0, errAway
	}
	return d.channels[channel], nil
}

func (d *double) newest(context.Context, string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away {
		return "", errAway
	}
	return fmt.Sprint(len(d.stream)), nil
}

func (d *double) read(ctx context.Context, _, after string) ([]redis.XMessage, error) {
	var last int
	fmt.Sscan(after, &last)
	for range 5 {
		d.mu.Lock()
		away, from, entries := d.away, max(last, d.trimmed), d.stream
		d.mu.Unlock()
		if away {
			return nil, errAway
		}
		if from < len(entries) {
			return entries[from:min(from+readCount, len(entries))], nil
		}
		select {
		case <-time.After(readBlock / 5):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, nil
}

func (d *double) keeps(_ context.Context, _, id string) (bool, error) {
	var last int
	fmt.Sscan(id, &last)
	d.mu.Lock()
	defer d.mu.Unlock()
	return last > d.trimmed, nil
}

// open returns the channels that have subscribers.
func (d *double) open() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(d.channels)), " ")
}

func (d *double) subscribe(ctx context.Context, _ bool) (bus.Subscription, error) {
	sub, err := d.bus.Subscribe(ctx)
	s := &doubleSub{Subscription: sub, double: d, topics: make(map[string]bool), wake: func() {}}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.subs == nil {
		d.subs, d.channels = make(map[*doubleSub]bool), make(map[string]int)
	}
	d.subs[s] = true
	return s, err
}

// A doubleSub is a subscription that reports a gap when Redis is back.
type doubleSub struct {
	bus.Subscription
	double *double
	topics map[string]bool
	broken bool
	wake   func()
}

func (s *doubleSub) Add(ctx context.Context, topics ...string) error {
	s.double.mu.Lock()
	defer s.double.mu.Unlock()
	for _, topic := range topics {
		if !s.topics[topic] {
			s.topics[topic] = true
			s.double.channels[topic]++
		}
	}
	if err := s.Subscription.Add(ctx, topics...); err != nil {
		return err
	}
	if s.double.away {
		s.broken = true
		s.wake()
		return errAway
	}
	return nil
}

func (s *doubleSub) Remove(ctx context.Context, topics ...string) error {
	if s.double.removing != nil {
		s.double.removing()
	}
	s.double.mu.Lock()
	defer s.double.mu.Unlock()
	for _, topic := range topics {
		if delete(s.topics, topic); s.double.channels[topic] > 1 {
			s.double.channels[topic]--
		} else {
			delete(s.double.channels, topic)
		}
	}
	return s.Subscription.Remove(ctx, topics...)
}

func (s *doubleSub) Close() error {
	_ = s.Remove(context.Background(), slices.Collect(maps.Keys(s.topics))...)
	s.double.mu.Lock()
	defer s.double.mu.Unlock()
	delete(s.double.subs, s)
	return s.Subscription.Close()
}

func (s *doubleSub) Next(ctx context.Context) (bus.Message, error) {
	for {
		next, wake := context.WithCancel(ctx)
		s.double.mu.Lock()
		if s.broken && s.double.half {
			s.double.half = false
			s.double.mu.Unlock()
			wake()
			return bus.Message{}, &bus.Gap{Lost: -1, Topics: []string{"of another node"}, Err: errAway}
		}
		if s.broken && !s.double.away {
			s.broken = false
			s.double.mu.Unlock()
			wake()
			return bus.Message{}, &bus.Gap{Lost: -1, Err: errAway}
		}
		s.wake = wake
		s.double.mu.Unlock()
		m, err := s.Subscription.Next(next)
		wake()
		if !errors.Is(err, context.Canceled) || ctx.Err() != nil {
			return m, err
		}
	}
}

// start runs a Cluster until the test ends.
func start(t *testing.T, d link, adapter Adapter, opts ClusterOptions) *Cluster {
	t.Helper()
	c, err := newCluster(d, adapter, &opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { stop(); running.Wait() })
	return c
}
