package bus

import (
	"context"
	"fmt"
	"sync"
)

// defaultQueue is the size of a queue for which none is given.
const defaultQueue = 1024

// A queue holds what a subscription's Next hasn't returned yet. Its zero value
// holds defaultQueue messages and drops the oldest ones.
type queue struct {
	limit     int
	closeSlow bool // close the subscription when one more is too many

	mu     sync.Mutex
	ring   []item
	head   int
	n      int
	lost   int64 // dropped before the head
	gap    *Gap  // dropped before the head, or nil
	closed error
	wake   chan struct{} // of the Next that waits, or nil
}

// An item is a message, or a gap.
type item struct {
	Message
	gap *Gap
}

// push puts it at the end. It never waits. It returns false if the queue is
// closed, maybe by this.
func (q *queue) push(it item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		return false
	}
	if q.n == q.size() {
		if q.closeSlow {
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
	q.awake()
	return true
}

// full tells whether one more is too many.
func (q *queue) full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n == q.size()
}

func (q *queue) size() int {
	if q.limit <= 0 {
		return defaultQueue
	}
	return q.limit
}

// drop drops the head, and keeps account of it.
func (q *queue) drop() {
	switch it := q.pop(); {
	case it.gap == nil:
		q.lost++
	case q.gap == nil:
		q.gap = it.gap
	default:
		q.gap = q.gap.and(it.gap)
	}
}

// grow doubles the ring up to the limit.
func (q *queue) grow() {
	ring := make([]item, min(max(2*len(q.ring), 8), q.size()))
	n := copy(ring, q.ring[q.head:])
	copy(ring[n:], q.ring[:q.head])
	q.ring, q.head = ring, 0
}

func (q *queue) pop() item {
	it := q.ring[q.head]
	q.ring[q.head] = item{}
	q.head = (q.head + 1) % len(q.ring)
	q.n--
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

// next returns what is next, or a channel to wait on.
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

// end closes the queue and forgets what is in it.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ring, q.head, q.n, q.lost, q.gap = nil, 0, 0, 0, nil
	q.close(ErrClosed)
}

func (q *queue) close(why error) {
	q.closed = why
	q.awake()
}

func (q *queue) awake() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
