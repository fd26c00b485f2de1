package socketio

import (
	"cmp"
	"context"
	"errors"
	"sync"
)

// ErrQueueFull is wrapped by the error of a queued [Emitter] for which too many messages wait.
var ErrQueueFull = errors.New("too many messages wait for Redis")

// Queued returns an Emitter that doesn't wait for Redis, as Node's doesn't. Its messages are
// sent in their order, many at a time, which costs a fraction of the processor's time. Up to
// limit of them may wait, 0 means 1024; then its methods return an error that wraps
// [ErrQueueFull]. failed is called with the error of each message that Redis may not have. The
// messages behind it wait until failed returns. A method that asks for something, such as
// FetchSockets, waits for the answers, and may overtake what is in the queue.
//
// A goroutine runs while messages wait. [Emitter.Flush] waits for its end. What waits when the
// process ends is lost.
func (e *Emitter) Queued(limit int, failed func(error)) *Emitter {
	if failed == nil {
		failed = func(error) {}
	}
	q := &Emitter{link: e.link, adapter: e.adapter, queue: &sendQueue{link: e.link, limit: cmp.Or(limit, 1024), failed: failed}}
	q.Target = Target{via: q, nsp: "/"}
	return q
}

// Flush waits until all messages of a queued Emitter are sent, or have failed. It returns an
// error only if ctx ends before.
func (e *Emitter) Flush(ctx context.Context) error {
	if e.queue == nil {
		return nil
	}
	e.queue.mu.Lock()
	idle := e.queue.idle
	e.queue.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A sendQueue has the frames that a queued Emitter hasn't sent yet.
type sendQueue struct {
	link   link
	limit  int
	failed func(error)

	mu      sync.Mutex
	n       int           // number of frames that wait or are being sent
	waiting []frame       // those that wait
	idle    chan struct{} // closed when n is 0; nil while it is
}

// add puts the frames of a message into the queue. The first one starts a goroutine, which
// ends when all are sent.
func (q *sendQueue) add(frames []frame) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n+len(frames) > q.limit {
		return ErrQueueFull
	}
	q.n += len(frames)
	q.waiting = append(q.waiting, frames...)
	if q.idle == nil {
		q.idle = make(chan struct{})
		go q.send()
	}
	return nil
}

// send sends what waits until nothing does.
func (q *sendQueue) send() {
	for sent := 0; ; {
		q.mu.Lock()
		frames := q.waiting
		q.waiting = nil
		if q.n -= sent; q.n == 0 {
			close(q.idle)
			q.idle = nil
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		q.link.sendAll(frames, q.failed)
		sent = len(frames)
	}
}
