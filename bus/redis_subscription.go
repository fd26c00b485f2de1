package bus

import (
	"cmp"
	"context"
	"fmt"
)

// A redisSubscription is one subscriber of a [Redis].
type redisSubscription struct {
	queue
	bus    *Redis
	feed   *feed
	topics map[string]*redisTopic // by channel, under feed.mu; nil once it is closed
}

// join returns a new subscription without topics. The first one starts the feed.
func (r *Redis) join() *redisSubscription {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.feed == nil {
		r.feed = newFeed(r)
	}
	s := &redisSubscription{bus: r, feed: r.feed, topics: map[string]*redisTopic{}}
	s.limit, s.closeSlow, s.counts = r.Queue, r.CloseSlow, &r.counts
	r.counts.opened(&s.queue)
	r.feed.users++
	return s
}

// leave takes a subscription off the feed, which ends with the last one. f.mu may be
// held, and bus.mu must not be: where both are held, f.mu is taken first.
func (r *Redis) leave(f *feed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.users--; f.users == 0 {
		f.stop()
		r.feed = nil
	}
}

// Add implements [Subscription].
func (s *redisSubscription) Add(ctx context.Context, topics ...string) error {
	ctx, cancel := context.WithTimeout(ctx, s.bus.timeout())
	defer cancel()
	var failed error
	for _, t := range s.add(topics) { // all of them, also after an error: each that is late is due a Gap
		if err := s.await(ctx, t); err != nil && failed == nil {
			failed = fmt.Errorf("bus: Redis: subscribe to %q: %w", t.name, err)
		}
	}
	return cmp.Or(failed, s.open())
}

// open returns ErrClosed if the subscription is closed.
func (s *redisSubscription) open() error {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if s.topics == nil {
		return ErrClosed
	}
	return nil
}

// add puts the subscription on topics, and returns those to wait for.
func (s *redisSubscription) add(topics []string) (wait []*redisTopic) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.topics == nil {
		return nil
	}
	for _, topic := range topics {
		t := f.want(topic, s)
		s.topics[t.channel] = t
		wait = append(wait, t)
	}
	return wait
}

// await waits until t is live or removed. If it returns an error, a Gap is due once t is
// live.
func (s *redisSubscription) await(ctx context.Context, t *redisTopic) error {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	for !t.live && s.topics[t.channel] == t {
		changed := t.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		f.mu.Lock()
		if err := ctx.Err(); err != nil && !t.live && s.topics[t.channel] == t {
			t.subs[s] = true
			if t.err != nil {
				err = fmt.Errorf("%w: %w", err, t.err)
			}
			return err
		}
	}
	return nil
}

// Remove implements [Subscription]. It returns no error.
func (s *redisSubscription) Remove(_ context.Context, topics ...string) error {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	for _, topic := range topics {
		if t := s.topics[s.bus.Prefix+topic]; t != nil {
			delete(s.topics, t.channel)
			s.feed.drop(t, s)
		}
	}
	return nil
}

// Close implements [Subscription].
func (s *redisSubscription) Close() error {
	s.end()
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.detach()
	return nil
}

// detach takes the subscription off its topics and off the feed; only the first call
// does. feed.mu is held.
func (s *redisSubscription) detach() {
	if s.topics == nil {
		return
	}
	for _, t := range s.topics {
		s.feed.drop(t, s)
	}
	s.topics = nil
	s.bus.leave(s.feed)
}
