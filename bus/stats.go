package bus

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// Stats are figures of one bus of this process, as [Memory.Stats], [Redis.Stats] and
// [Streams.Stats] return them. The counts begin when the bus is first used.
type Stats struct {
	Published     int64 // the calls of Publish that returned no error
	PublishErrors int64 // the calls of Publish that returned one
	Delivered     int64 // the messages that were put into queues, counted for each subscription
	Gaps          int64 // the Gaps that were put into queues, because of the connection, of Redis or of a history that is too short
	Dropped       int64 // the messages that subscriptions have lost because they were too slow
	ClosedSlow    int64 // the subscriptions that were closed because they were too slow
	Topics        int   // the topics that are subscribed to now
	Away          int   // of these, the ones whose messages don't arrive now: Redis is away, or hasn't confirmed them yet

	Subscriptions int       // the subscriptions that are open now
	Queued        int       // the messages and Gaps that wait in their queues now
	LongestQueue  int       // of these, the ones in the longest queue: what is near Queue means a subscriber that is too slow
	Disconnects   int64     // the times that a connection for subscriptions broke or was given up; in a Cluster there is one to each node
	PublishTimes  Durations // how long the calls of Publish took, those too that returned an error; not counted by Memory
}

// counts has what Stats counts. Methods of a nil *counts do nothing.
type counts struct {
	published, publishErrors, delivered, gaps, dropped, closedSlow, disconnects atomic.Int64

	publishTimes durations

	mu     sync.Mutex // may be taken while a queue is locked, never the other way round
	queues map[*queue]struct{}
}

// opened notes a queue whose length counts until closed is called with it.
func (c *counts) opened(q *queue) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queues == nil {
		c.queues = map[*queue]struct{}{}
	}
	c.queues[q] = struct{}{}
}

// closed notes that a queue is closed. Its mutex may be held.
func (c *counts) closed(q *queue) {
	if c != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.queues, q)
	}
}

// publish counts a Publish that has returned err.
func (c *counts) publish(err error) {
	if err != nil {
		c.publishErrors.Add(1)
	} else {
		c.published.Add(1)
	}
}

// drop counts a message that a full queue has lost.
func (c *counts) drop() {
	if c != nil {
		c.dropped.Add(1)
	}
}

// closeSlow counts a subscription that is closed because its queue is full.
func (c *counts) closeSlow() {
	if c != nil {
		c.closedSlow.Add(1)
	}
}

// stats returns what was counted until now.
func (c *counts) stats() Stats {
	s := Stats{
		Published: c.published.Load(), PublishErrors: c.publishErrors.Load(), Delivered: c.delivered.Load(),
		Gaps: c.gaps.Load(), Dropped: c.dropped.Load(), ClosedSlow: c.closedSlow.Load(),
		Disconnects: c.disconnects.Load(), PublishTimes: c.publishTimes.load(),
	}
	c.mu.Lock()
	queues := slices.Collect(maps.Keys(c.queues))
	c.mu.Unlock()
	s.Subscriptions = len(queues)
	for _, q := range queues {
		n := q.len()
		s.Queued += n
		s.LongestQueue = max(s.LongestQueue, n)
	}
	return s
}

// Stats returns the figures of this bus. It may be called concurrently.
func (m *Memory) Stats() Stats {
	s := m.counts.stats()
	m.mu.RLock()
	defer m.mu.RUnlock()
	s.Topics = len(m.topics)
	return s
}

// Stats returns the figures of this bus. It may be called concurrently, and asks Redis
// nothing.
func (r *Redis) Stats() Stats {
	s := r.counts.stats()
	r.mu.Lock()
	f := r.feed
	r.mu.Unlock()
	if f != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		s.Topics, s.Away = len(f.topics), len(f.topics)-f.live
	}
	return s
}

// Stats returns the figures of this bus. It may be called concurrently, and asks Redis
// nothing. A topic is away while its messages ring at nobody: they are read once it is
// back. Dropped and ClosedSlow are 0, since a slow subscription reads on from the history.
func (s *Streams) Stats() Stats {
	s.once.Do(s.init)
	stats := s.counts.stats()
	bell := s.bell.Stats()
	stats.Topics, stats.Away, stats.Disconnects = bell.Topics, bell.Away, bell.Disconnects
	return stats
}
