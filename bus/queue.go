package bus

import (
	"context"
	"fmt"
	"sync"
)

const (
	// defaultQueue is the size of a queue for which none is given.
	defaultQueue = 1024
	// manyBytes is how much a queue with more than defaultQueue messages holds: what Redis
	// holds for a slow subscriber, too, by its default.
	manyBytes = 32 << 20
)

// A queue holds the messages of a subscription that Next hasn't returned yet. The zero
// value holds defaultQueue messages and drops the oldest ones.
type queue struct {
	limit     int
	closeSlow bool    // close the subscription when one more is too many
	counts    *counts // of the bus; nil: nothing is counted

	mu     sync.Mutex
	ring   []item        // grows up to limit
	head   int           // index of the oldest item
	n      int           // number of items
	bytes  int           // length of their data
	lost   int64         // number of messages that were dropped before the oldest item
	gap    *Gap          // the sum of the gaps that were dropped before it, or nil
	closed error         // what Next returns once the queue is empty; nil while it is open
	wake   chan struct{} // wakes the Next that waits; nil until one has waited
}

// An item is a message, or a gap if that isn't nil.
type item struct {
	Message
	gap *Gap
}

// push puts an item at the end of the queue. It never waits. It returns false if the
// queue is closed, or if this call has closed it because it was full.
func (q *queue) push(it item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		return false
	}
	for q.isFull() {
		if q.closeSlow {
			q.counts.closeSlow()
			q.close(fmt.Errorf("%w: the subscriber was too slow, %d messages are waiting", ErrClosed, q.n))
			return false
		}
		q.drop()
	}
	if q.n == len(q.ring) {
		q.grow()
	}
	q.ring[(q.head+q.n)%len(q.ring)] = it
	q.n++
	q.bytes += len(it.Data)
	q.awake()
	return true
}

// full reports whether one more item is too many.
func (q *queue) full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.isFull()
}

// isFull is full for callers that hold q.mu.
func (q *queue) isFull() bool {
	return q.n == q.size() || q.n >= defaultQueue && q.bytes >= manyBytes
}

// len returns the number of items.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n
}

func (q *queue) size() int {
	if q.limit <= 0 {
		return defaultQueue
	}
	return q.limit
}

// drop drops the oldest item, of which Next will return a gap.
func (q *queue) drop() {
	switch it := q.pop(); {
	case it.gap == nil:
		q.lost++
		q.counts.drop()
	case q.gap == nil:
		q.gap = it.gap
	default:
		q.gap = q.gap.and(it.gap)
	}
}

// grow makes room in the ring: twice as much as there is, up to the limit.
func (q *queue) grow() {
	ring := make([]item, min(max(2*len(q.ring), 8), q.size()))
	n := copy(ring, q.ring[q.head:])
	copy(ring[n:], q.ring[:q.head])
	q.ring, q.head = ring, 0
}

// pop takes the oldest item out of the queue.
func (q *queue) pop() item {
	it := q.ring[q.head]
	q.ring[q.head] = item{}
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	q.bytes -= len(it.Data)
	return it
}

// Next implements [Subscription].
func (q *queue) Next(ctx context.Context) (Message, error) {
	for {
		m, wait, err := q.next()
		if wait == nil {
			return m, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return Message{}, ctx.Err()
		}
	}
}

// next returns the next message or error, or a channel to wait on before it is called
// again.
func (q *queue) next() (m Message, wait <-chan struct{}, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.lost > 0:
		err = &Gap{Lost: q.lost}
		q.lost = 0
	case q.gap != nil:
		err = q.gap
		q.gap = nil
	case q.n > 0:
		it := q.pop()
		if m = it.Message; it.gap != nil {
			err = it.gap
		}
	case q.closed != nil:
		err = q.closed
	default:
		if q.wake == nil {
			q.wake = make(chan struct{}, 1)
		}
		wait = q.wake
	}
	return m, wait, err
}

// end closes the queue and drops what is in it.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ring, q.head, q.n, q.bytes, q.lost, q.gap = nil, 0, 0, 0, 0, nil
	q.close(ErrClosed)
}

// close closes the queue. q.mu is held.
func (q *queue) close(why error) {
	q.closed = why
	q.counts.closed(q)
	q.awake()
}

// awake wakes the Next that waits, if one does. q.mu is held.
func (q *queue) awake() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
