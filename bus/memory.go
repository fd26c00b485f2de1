package bus

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"
)

// Memory is a [Bus] within this process, and the reference for the others.
//
// Publish puts a message into the queue of each subscription before it returns. Each
// message arrives exactly once, and all subscriptions get the messages of a topic in
// the same order, however many goroutines publish on it. Publish never waits for a
// subscriber: one that is too slow loses messages or is closed, as CloseSlow says.
//
// The zero value is ready for use. A Memory starts no goroutine. It must not be copied,
// and its fields must not be changed, once it is used.
type Memory struct {
	// Queue is the number of messages that may wait in each subscription. 0 means
	// 1024. More than these may wait only up to 32 MiB.
	Queue int
	// CloseSlow says what happens to a subscription whose queue is full when
	// another message comes. By default it loses the oldest message in its queue,
	// and Next returns a [Gap] with the number of lost messages in their place.
	// With CloseSlow the subscription is closed: Next still returns what is in the
	// queue, and then an error that wraps [ErrClosed] and says why.
	CloseSlow bool
	// History is the number of messages that each topic keeps, for [Memory.Last] and
	// [Memory.After]. 0 means none.
	History int
	// Idle is how long a topic without subscriptions is kept at least after the last
	// message was published on it; 0 means for ever. It matters with a History only.
	Idle time.Duration

	counts counts
	mu     sync.RWMutex
	topics map[string]*memoryTopic // those that have subscriptions, or have kept messages
	sweep  int                     // the number of topics at which to look for those to forget
}

type memoryTopic struct {
	mu   sync.Mutex // held while a message is put into all queues, so that they agree on the order
	subs []*memorySubscription
	past past
}

type memorySubscription struct {
	queue
	bus    *Memory
	topics map[string]bool // under bus.mu; nil once it is closed
}

// Publish puts a copy of data into the queues of topic. The only error is that
// of ctx.
func (m *Memory) Publish(ctx context.Context, topic string, data []byte) error {
	_, err := m.Append(ctx, topic, data)
	return err
}

// publish returns the ID of the message, and the subscriptions that are closed, to be taken
// off their topics: that needs bus.mu for writing.
func (m *Memory) publish(topic string, data []byte) (id string, gone []*memorySubscription) {
	m.mu.RLock()
	t := m.topics[topic]
	if t != nil || m.History <= 0 {
		defer m.mu.RUnlock()
	} else {
		m.mu.RUnlock()
		m.mu.Lock()
		defer m.mu.Unlock()
		t = m.open(topic)
	}
	if t == nil {
		return "", nil
	}
	it := item{Message: Message{Topic: topic, Data: bytes.Clone(data)}}
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.History > 0 {
		t.past.keep(&it.Message, m.History)
	}
	for _, sub := range t.subs {
		if !sub.push(it) {
			gone = append(gone, sub)
		}
	}
	m.counts.delivered.Add(int64(len(t.subs) - len(gone)))
	return it.ID, gone
}

// Subscribe subscribes to topics. The only error is that of ctx.
func (m *Memory) Subscribe(ctx context.Context, topics ...string) (Subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sub := &memorySubscription{bus: m, topics: map[string]bool{}}
	sub.limit, sub.closeSlow, sub.counts = m.Queue, m.CloseSlow, &m.counts
	m.counts.opened(&sub.queue)
	return sub, sub.Add(ctx, topics...)
}

// Add implements [Subscription]. It doesn't wait, so ctx doesn't matter.
func (s *memorySubscription) Add(_ context.Context, topics ...string) error {
	m := s.bus
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.topics == nil {
		return ErrClosed
	}
	for _, topic := range topics {
		if s.topics[topic] {
			continue
		}
		s.topics[topic] = true
		t := m.open(topic)
		t.subs = append(t.subs, s)
	}
	return nil
}

// Remove implements [Subscription].
func (s *memorySubscription) Remove(_ context.Context, topics ...string) error {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	for _, topic := range topics {
		s.remove(topic)
	}
	return nil
}

// Close implements [Subscription].
func (s *memorySubscription) Close() error {
	s.leave()
	s.end()
	return nil
}

// leave takes the subscription off all topics, for good.
func (s *memorySubscription) leave() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	for topic := range s.topics {
		s.remove(topic)
	}
	s.topics = nil
}

// remove takes the subscription off a topic. bus.mu is held.
func (s *memorySubscription) remove(topic string) {
	if !s.topics[topic] {
		return
	}
	delete(s.topics, topic)
	t := s.bus.topics[topic]
	t.subs = slices.DeleteFunc(t.subs, func(other *memorySubscription) bool { return other == s })
	if len(t.subs) == 0 && t.past.last == 0 {
		delete(s.bus.topics, topic)
	}
}
