package bus

import "unicode/utf8"

// queued is what waits for a member's connection.
type queued struct {
	ping   bool // goes first, beside the limits
	frames []*Frame
	head   int // of what is left in frames
	bytes  int // of payload
}

// push puts a message at the end. Without room it drops the oldest ones or, as
// the options say, reports that it doesn't fit.
func (q *queued) push(f *Frame, opts *HubOptions) (dropped int, fits bool) {
	for len(q.frames) > q.head &&
		(len(q.frames)-q.head >= opts.QueueMessages || q.bytes+len(f.payload) > opts.QueueBytes) {
		if !opts.DropOldest {
			return 0, false
		}
		q.shift()
		dropped++
	}
	if q.head > 0 && len(q.frames) == cap(q.frames) {
		n := copy(q.frames, q.frames[q.head:])
		clear(q.frames[n:])
		q.frames, q.head = q.frames[:n], 0
	}
	q.frames = append(q.frames, f)
	q.bytes += len(f.payload)
	return dropped, true
}

// shift takes the oldest message out.
func (q *queued) shift() *Frame {
	f := q.frames[q.head]
	q.frames[q.head] = nil
	q.head++
	q.bytes -= len(f.payload)
	return f
}

// What is written at once is beside the limits of the queue.
const (
	batchMessages = 64
	batchBytes    = 64 << 10
)

// pop moves what is to be written next to batch.
func (q *queued) pop(batch []*Frame) []*Frame {
	if q.ping {
		batch = append(batch, &Frame{bytes: []byte{0x89, 0}}) // RFC 6455, section 5.5.2
		q.ping = false
	}
	bytes := 0
	for len(q.frames) > q.head && len(batch) < batchMessages && bytes < batchBytes {
		f := q.shift()
		batch = append(batch, f)
		bytes += len(f.payload)
	}
	if q.head == len(q.frames) {
		q.frames, q.head = q.frames[:0], 0
		if cap(q.frames) > batchMessages {
			q.frames = nil // what a burst has needed
		}
	}
	return batch
}

// Close codes (RFC 6455, section 7.4, and those that are registered with IANA
// beside it).
const (
	closeNormal  = 1000
	closeNone    = 1005 // not on the wire: stands for a close frame without a code
	closeInvalid = 1007 // invalid frame payload data
	closeBroken  = 1011 // internal error
	closeRestart = 1012 // service restart
	closeSlow    = 1013 // try again later
)

// sendable returns what may be in a close frame (RFC 6455, sections 5.5 and 7.4).
func sendable(code int, reason string) (int, string) {
	if code < 1000 || code == 1004 || code == 1005 || code == 1006 || code == 1015 || code >= 5000 ||
		code > 1014 && code < 3000 {
		return closeNone, ""
	}
	const most = 123
	if len(reason) > most {
		n := most
		for n > 0 && !utf8.RuneStart(reason[n]) {
			n--
		}
		reason = reason[:n]
	}
	return code, reason
}
