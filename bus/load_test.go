package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
)

// load publishes on a Redis and a Streams, with a subscriber to each.
type load struct {
	pubsub, streams         *publisher
	fromPubsub, fromStreams *listener
}

// startLoad has the subscribers use a client of their own.
func startLoad(t *testing.T, topic string, publish, subscribe redis.UniversalClient) *load {
	_, sharded := publish.(*redis.ClusterClient)
	b := func(c redis.UniversalClient) *bus.Redis {
		return &bus.Redis{Client: c, Queue: 1 << 20, Prefix: "p:", Sharded: sharded}
	}
	s := func(c redis.UniversalClient) *bus.Streams { return &bus.Streams{Client: c, MaxLen: 1 << 20} }
	slow := s(publish)
	slow.Timeout = patience // its publishers wait for Redis
	return &load{
		fromPubsub: listen(t, b(subscribe), topic), fromStreams: listen(t, s(subscribe), topic),
		pubsub: &publisher{bus: b(publish), topic: topic}, streams: &publisher{bus: slow, topic: topic},
	}
}

// usual is more than run's 100 messages take on a machine that has little else to do.
const usual = 300 * time.Millisecond

// run publishes all the while: before a fault, in it, and after it. Streams must
// have lost nothing, unless Redis has. Redis has as many gaps as are wanted, and has lost
// nothing if there is none.
func (l *load) run(t *testing.T, fault func(), redisLoses bool, want int) {
	before, missing := l.fromPubsub.gaps(), l.fromPubsub.missing()-l.pubsub.failures()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, p := range []*publisher{l.pubsub, l.streams} {
		wg.Go(func() { p.run(ctx) })
	}
	defer wg.Wait()
	defer stop()
	more := func() { // what is on its way already doesn't count
		t.Helper()
		l.fromPubsub.await(t, l.pubsub.begun()+100)
		l.fromStreams.await(t, l.streams.begun()+100)
	}
	more()
	began := time.Now()
	more()
	calm := time.Since(began) // what it takes a machine that is busy with other tests
	busy := max(1, float64(calm)/float64(usual))
	fault()
	began = time.Now()
	more()
	if took := time.Since(began) - calm; took.Seconds() > busy*onItsOwn.Seconds() {
		t.Errorf("the subscribers went on after %v", took)
	} else {
		t.Logf("the subscribers went on after %v", took)
	}
	stop()
	wg.Wait()

	l.streams.check(t)
	l.fromStreams.await(t, l.streams.begun())
	lost := l.fromStreams.check(t)
	l.fromPubsub.check(t)
	switch n := l.fromStreams.gaps(); {
	case !redisLoses && (lost > 0 || n > 0):
		t.Errorf("Streams: %d messages lost, %d gaps", lost, n)
	case lost > 0 && n == 0:
		t.Errorf("Streams: %d messages lost in silence", lost)
	}
	missing = l.fromPubsub.missing() - l.pubsub.failures() - missing
	t.Logf("Redis: %d messages lost", missing)
	if n := l.fromPubsub.gaps() - before; n < want || n > want && (busy == 1 || n-want > l.fromPubsub.late(before)) {
		t.Errorf("Redis: %d gaps, want %d", n, want)
	} else if n == 0 && missing > 0 {
		t.Errorf("Redis: %d messages lost in silence", missing)
	}
}

// A publisher publishes numbers, from 1.
type publisher struct {
	bus   bus.Bus
	topic string

	mu     sync.Mutex
	last   int64
	failed []error
}

func (p *publisher) run(ctx context.Context) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		p.mu.Lock()
		p.last++
		n := p.last
		p.mu.Unlock()
		// Not ctx: this one is to be decided when the test ends.
		if err := p.bus.Publish(context.Background(), p.topic, strconv.AppendInt(nil, n, 10)); err != nil {
			p.mu.Lock()
			p.failed = append(p.failed, err)
			p.mu.Unlock()
		}
		<-tick.C
	}
}

// begun returns the last number.
func (p *publisher) begun() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// more waits until n more have begun.
func (p *publisher) more(t *testing.T, n int64) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for until := p.begun() + n; p.begun() < until; {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("the publisher is stuck")
		}
	}
}

// failures returns the number of messages whose Publish has failed.
func (p *publisher) failures() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(len(p.failed))
}

// check fails the test if a Publish has.
func (p *publisher) check(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.failed) > 0 {
		t.Errorf("%d of %d messages were not published: %v", len(p.failed), p.last, p.failed[0])
	}
}

// A listener takes down what a subscription gets.
type listener struct {
	bus.Subscription
	mu      sync.Mutex
	numbers []int64
	errs    []error
	ids     []string
	changed chan struct{}
}

// listen subscribes, which may take longer here than the bus waits.
func listen(t *testing.T, b bus.Bus, topics ...string) *listener {
	t.Helper()
	var sub bus.Subscription
	await(t, "the subscription", func() (ok bool) {
		var err error
		sub, err = b.Subscribe(t.Context(), topics...)
		return err == nil
	})
	return listenTo(t, sub)
}

func listenTo(t *testing.T, sub bus.Subscription) *listener {
	l := &listener{Subscription: sub, changed: make(chan struct{})}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { sub.Close() })
	wg.Go(func() {
		for {
			m, err := sub.Next(context.Background())
			if errors.Is(err, bus.ErrClosed) {
				return
			}
			n, _ := strconv.ParseInt(string(m.Data), 10, 64)
			l.mu.Lock()
			if err != nil {
				l.errs = append(l.errs, err)
			} else {
				l.numbers = append(l.numbers, n)
				l.ids = append(l.ids, m.ID)
			}
			close(l.changed)
			l.changed = make(chan struct{})
			l.mu.Unlock()
		}
	})
	return l
}

// until waits until ok, which is called with l.mu held.
func (l *listener) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	late := time.After(patience)
	for {
		l.mu.Lock()
		done, changed := ok(), l.changed
		l.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-late:
			l.mu.Lock()
			defer l.mu.Unlock()
			t.Fatalf("waited in vain for %s; got %d messages up to %v, %v", what, len(l.numbers), l.numbers[max(0, len(l.numbers)-3):], l.errs)
		}
	}
}

// await waits for a number, or a greater one.
func (l *listener) await(t *testing.T, n int64) {
	t.Helper()
	l.until(t, fmt.Sprint("number ", n), func() bool { return len(l.numbers) > 0 && l.numbers[len(l.numbers)-1] >= n })
}

// awaitGap waits for the nth gap.
func (l *listener) awaitGap(t *testing.T, n int) *bus.Gap {
	t.Helper()
	l.until(t, fmt.Sprint("gap ", n), func() bool { return len(l.errs) >= n })
	var gap *bus.Gap
	if !errors.As(l.errs[n-1], &gap) {
		t.Fatalf("got %v, want a Gap", l.errs[n-1])
	}
	return gap
}

func (l *listener) gaps() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.errs)
}

// late returns how many of the gaps behind the first n are due to a connection that hasn't answered
// in time, which on a busy machine needn't be dead.
func (l *listener) late(n int) (late int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, err := range l.errs[n:] {
		if strings.Contains(err.Error(), "hasn't answered for") {
			late++
		}
	}
	return late
}

// missing returns how many numbers are missing before the last one.
func (l *listener) missing() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.numbers) == 0 {
		return 0
	}
	return l.numbers[len(l.numbers)-1] - int64(len(l.numbers))
}

// check fails the test unless the numbers are in order, and returns how many are
// missing.
func (l *listener) check(t *testing.T) (missing int64) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, n := range l.numbers {
		if i > 0 && n <= l.numbers[i-1] {
			t.Fatalf("%d behind %d", n, l.numbers[i-1])
		}
	}
	return l.numbers[len(l.numbers)-1] - int64(len(l.numbers))
}
