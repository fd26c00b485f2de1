package hub

import "slices"

// queued is what waits for a member's connection. It is under Member.mu.
type queued struct {
	ping   bool   // a ping is due: it goes first, and counts for no limit
	pong   []byte // a frame that is due, likewise; of several only the last one has to be sent (RFC 6455, section 5.5.3)
	alive  *Frame // a line that is due, likewise; or nil
	frames []*Frame
	bytes  int // the sum of their sizes
}

// size returns what a message counts as in a queue: the length of its payload, but
// at least about what it takes to keep a short one.
func (f *Frame) size() int { return max(len(f.payload), 64) }

// queued returns the bytes that wait for the member's connection.
func (m *Member) queued() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.queue.bytes
}

// push puts a message at the end. If there is no room for it, push drops as many of
// the oldest messages as it takes and returns their number, or, without dropOldest,
// reports that the message doesn't fit.
func (q *queued) push(f *Frame, opts *Options, dropOldest bool) (dropped int, fits bool) {
	left := q.bytes
	for dropped < len(q.frames) &&
		(len(q.frames)-dropped >= opts.QueueMessages || left+f.size() > opts.QueueBytes) {
		left -= q.frames[dropped].size()
		dropped++
	}
	if dropped > 0 {
		if !dropOldest {
			return 0, false
		}
		q.frames = slices.Delete(q.frames, 0, dropped)
	}
	q.bytes = left
	q.add(f)
	return dropped, true
}

// fits reports whether there is room for a message.
func (q *queued) fits(f *Frame, opts *Options) bool {
	return len(q.frames) == 0 || len(q.frames) < opts.QueueMessages && q.bytes+f.size() <= opts.QueueBytes
}

// add puts a message at the end.
func (q *queued) add(f *Frame) {
	q.frames = append(q.frames, f)
	q.bytes += f.size()
}

// What is passed to one call of Conn.Send. It has left the queue by then, and doesn't
// count for its bounds any more.
const (
	batchMessages = 64
	batchBytes    = 64 << 10
)

// pop moves the messages that are to be written next from the queue to batch. It returns
// the batch and their number, for which a ping doesn't count.
func (q *queued) pop(batch []*Frame) ([]*Frame, int) {
	if q.ping {
		batch = append(batch, &Frame{bytes: []byte{0x89, 0}}) // RFC 6455, section 5.5.2
		q.ping = false
	}
	if q.pong != nil {
		batch = append(batch, &Frame{bytes: q.pong})
		q.pong = nil
	}
	if q.alive != nil {
		batch = append(batch, q.alive)
		q.alive = nil
	}
	n, bytes := 0, 0
	for n < min(len(q.frames), batchMessages) && bytes < batchBytes {
		bytes += q.frames[n].size()
		n++
	}
	batch = append(batch, q.frames[:n]...)
	q.bytes -= bytes
	if q.frames = slices.Delete(q.frames, 0, n); len(q.frames) == 0 && cap(q.frames) > batchMessages {
		q.frames = nil // gives back the memory that a burst needed
	}
	return batch, n
}
