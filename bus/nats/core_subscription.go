package nats

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/limpet-go/limpet/bus"
)

// A coreSubscription is one subscriber of a [Core]. Its queue is that of a [bus.Memory], which
// gets what comes from NATS for a topic.
type coreSubscription struct {
	bus.Subscription
	core   *Core
	why    atomic.Pointer[error] // why the bus has closed it; nil otherwise
	topics map[string]*coreTopic // under Core.mu; nil once it is closed
}

// join returns a new subscription without topics. The first one starts watch.
func (c *Core) join(ctx context.Context) (*coreSubscription, error) {
	queue, err := c.local.Subscribe(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kick == nil {
		c.kick, c.begin = make(chan struct{}, 1), c.Conn.Stats().Reconnects
		c.topics, c.subs = map[string]*coreTopic{}, map[*coreSubscription]struct{}{}
	}
	if c.stop == nil {
		c.settled.Store(c.Conn.Stats().Reconnects)
		var watching context.Context
		watching, c.stop = context.WithCancel(context.Background())
		go c.watch(watching, c.Conn.StatusChanged(nats.CONNECTED, nats.CLOSED)) // ends with the last subscription
	}
	s := &coreSubscription{Subscription: queue, core: c, topics: map[string]*coreTopic{}}
	c.subs[s] = struct{}{}
	return s, nil
}

// Next implements [bus.Subscription].
func (s *coreSubscription) Next(ctx context.Context) (bus.Message, error) {
	m, err := s.Subscription.Next(ctx)
	if errors.Is(err, bus.ErrClosed) {
		s.leave() // it may have been closed because it was slow
		if why := s.why.Load(); why != nil {
			err = fmt.Errorf("%w: %w", err, *why)
		}
	}
	return m, err
}

// Add implements [bus.Subscription].
func (s *coreSubscription) Add(ctx context.Context, topics ...string) error {
	c := s.core
	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	var failed error
	for _, topic := range topics {
		name := subject(c.Prefix, topic)
		err := c.confirmed(ctx, name, func() error { return s.enter(topic, name) })
		s.entered(topic, err)
		if err != nil && failed == nil {
			failed = fmt.Errorf("bus: NATS: subscribe to %q: %w", topic, err)
		}
		if errors.Is(err, bus.ErrClosed) {
			return err
		}
	}
	return failed
}

// enter puts the subscription on a topic.
func (s *coreSubscription) enter(topic, name string) error {
	c := s.core
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.topics == nil {
		return bus.ErrClosed
	}
	if s.topics[topic] != nil {
		return nil
	}
	t := c.topics[topic]
	if t == nil {
		ctx, cancel := context.WithCancel(context.Background())
		sub, err := c.Conn.Subscribe(name, func(m *nats.Msg) { c.receive(ctx, topic, m.Data) })
		if err != nil {
			cancel()
			return err
		}
		// The client would drop what waits for receive, in silence. That doesn't wait for
		// subscribers.
		if err := sub.SetPendingLimits(-1, -1); err != nil {
			cancel()
			return err
		}
		t = &coreTopic{nats: sub, cancel: cancel}
		c.topics[topic] = t
	}
	if err := s.Subscription.Add(context.Background(), topic); err != nil {
		return err
	}
	s.topics[topic] = t
	t.subs++
	return nil
}

// entered notes whether the server has confirmed a topic. If that isn't certain, watch finds
// out, and a Gap follows. A topic that it has refused is left.
func (s *coreSubscription) entered(topic string, err error) {
	c := s.core
	c.mu.Lock()
	defer c.mu.Unlock()
	t := s.topics[topic]
	switch {
	case t == nil || t.live && err == nil:
	case errors.Is(err, nats.ErrPermissionViolation): // it would be refused again
		s.remove(topic)
		_ = s.Subscription.Remove(context.Background(), topic) // returns no error
	case err == nil && !t.owed && c.Conn.Stats().Reconnects == c.settled.Load():
		t.live = true
	default: // other subscriptions to the topic get the Gap, too
		t.live, t.owed = false, true
		select {
		case c.kick <- struct{}{}:
		default:
		}
	}
}

// Remove implements [bus.Subscription]. It returns no error.
func (s *coreSubscription) Remove(ctx context.Context, topics ...string) error {
	c := s.core
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, topic := range topics {
		s.remove(topic)
	}
	return s.Subscription.Remove(ctx, topics...)
}

// remove takes the subscription off a topic. Core.mu is held.
func (s *coreSubscription) remove(topic string) {
	t := s.topics[topic]
	if t == nil {
		return
	}
	delete(s.topics, topic)
	if t.subs--; t.subs == 0 {
		delete(s.core.topics, topic)
		t.cancel()
		_ = t.nats.Unsubscribe() // its error is that the connection is closed
	}
}

// Close implements [bus.Subscription].
func (s *coreSubscription) Close() error {
	s.leave()
	return s.Subscription.Close()
}

// end closes the subscription because of an error.
func (s *coreSubscription) end(why error) {
	s.why.Store(&why)
	s.Close()
}

// leave takes the subscription off its topics and off the bus; only the first call does. The
// last subscription stops watch.
func (s *coreSubscription) leave() {
	c := s.core
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.topics == nil {
		return
	}
	for topic := range s.topics {
		s.remove(topic)
	}
	s.topics = nil
	delete(c.subs, s)
	if len(c.subs) == 0 {
		c.stop()
		c.stop = nil
	}
}
