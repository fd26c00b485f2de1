package upgrade

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/limpet-go/limpet/internal/sockets"
)

// A loopFlow is one direction of a tunnel on a loop. The tunnel's course knows its
// phase. Bytes pass like this; whatever stops them leaves the rest in pending:
//
//	read      takes what the source has into the loop's buffer, once for each event
//	forward   has frames track them and writes as much as the destination has room for
//	keep      copies the rest into pending; the source isn't read until that is gone
//	flush     forwards pending, once epoll says that there is room
//	settle    behind the last byte: close frame and shutdown, if the course says so
type loopFlow struct {
	frames  frames
	bytes   int64    // written, without those of the head
	pending *pending // nil while the destination has room
	dir     direction
	fin     bool // the writing to the destination is shut down when all is written
}

// pending holds the bytes that wait for room at the destination. It is borrowed only
// while there are some.
type pending struct {
	room [chunkSize]byte
	b    []byte // within room, except for what is longer
	fed  int    // how many bytes of b frames has tracked already: no sender may write before them
}

// chunkSize is what one read takes at most.
const chunkSize = 64 << 10

var pendings = sync.Pool{New: func() any { return new(pending) }}

// keep keeps b in pending, or releases pending if b is empty.
func (f *loopFlow) keep(b []byte, fed int) {
	if len(b) == 0 {
		f.drop()
		return
	}
	if f.pending == nil {
		f.pending = pendings.Get().(*pending)
		b = append(f.pending.room[:0], b...)
	}
	f.pending.b, f.pending.fed = b, fed
}

// drop releases pending.
func (f *loopFlow) drop() {
	if f.pending != nil {
		f.pending.b = nil
		pendings.Put(f.pending)
		f.pending = nil
	}
}

// source returns the descriptor that f reads. In fds it has the index of f's
// direction, and the one that f writes to has the other index.
func (t *loopTunnel) source(f *loopFlow) int      { return int(t.fds[f.dir]) }
func (t *loopTunnel) destination(f *loopFlow) int { return int(t.fds[1-f.dir]) }

// phase returns the phase of f's direction.
func (t *loopTunnel) phase(f *loopFlow) phase {
	if t.ending == nil {
		return relaying
	}
	return t.ending.phases[f.dir]
}

// busy reports whether something has to be written to f's destination before anything
// else: pending bytes, or the rest of a sender's message.
func (t *loopTunnel) busy(f *loopFlow) bool {
	return f.pending != nil || t.unsent(f) || f.dir == toClient && t.senders != nil && t.senders.begun
}

// reads reports whether f wants to read its source.
func (t *loopTunnel) reads(f *loopFlow) bool {
	phase := t.phase(f)
	return (phase == discarding || phase == relaying && !t.busy(f)) && !t.secure[f.dir].chokes()
}

// blocked reports whether f waits for room at its destination.
func (t *loopTunnel) blocked(f *loopFlow) bool {
	return f.pending != nil || t.unsent(f) || f.dir == toClient && t.senderDue()
}

// read reads once from the source and forwards what came.
func (t *loopTunnel) read(f *loopFlow) {
	if e := t.secure[f.dir]; e != nil {
		t.readSecure(f, e)
		return
	}
	n, err := sockets.Receive(t.source(f), t.loop.buf[:])
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
	case n <= 0:
		t.carryOut(f, t.ensureEnding().sourceEnded(t.loop.now, f.dir, os.NewSyscallError("read", err)))
	default:
		t.received(f, t.loop.buf[:n], n == len(t.loop.buf))
	}
}

// received forwards b, which has come from the source. full tells that there may be more
// of what the kernel has had for long.
func (t *loopTunnel) received(f *loopFlow, b []byte, full bool) {
	if t.phase(f) == discarding {
		return
	}
	t.last = stampOf(t.loop.now)
	if f.dir == toClient && !full {
		t.spoken = t.last
		t.tunnel.heard()
	}
	if !t.closing() || t.ending.lingersIn(f.dir) {
		if !f.frames.drops() {
			t.extend()
		}
		t.forward(f, b, 0)
		return
	}
	// The tunnel is closing, and this direction only waits for the end of a frame:
	// the rest of that frame is passed on, and what follows it is dropped.
	n := f.frames.next(b)
	t.forward(f, b[:n], n)
}

// flush goes on to write once there is room. That counts as a sign of life, since the
// source wasn't read meanwhile.
func (t *loopTunnel) flush(f *loopFlow) {
	t.extend()
	if !t.flushSecure(f) {
		return
	}
	if f.pending != nil {
		t.forward(f, f.pending.b, f.pending.fed)
	} else {
		t.forward(f, nil, 0)
	}
}

// forward writes b, of which frames has tracked the first fed bytes already, and keeps
// what there is no room for. Where a message ends and senders wait, it lets one of
// them write; behind b it lets all of them.
func (t *loopTunnel) forward(f *loopFlow, b []byte, fed int) {
	for {
		for fed > 0 {
			n, err := t.write(f, b[:fed])
			switch {
			case err == syscall.EAGAIN:
				f.keep(b, fed)
				return
			case err == syscall.EINTR:
			case err != nil:
				t.writeFailed(f, os.NewSyscallError("write", err))
				return
			default:
				if t.phase(f) == relaying { // else it is a close frame of the gateway's
					f.bytes += int64(n)
				}
				b, fed = b[n:], fed-n
				t.took(f)
			}
		}
		if code, reason := int(f.frames.stop), f.frames.reason(); code != 0 && t.phase(f) == relaying {
			f.drop()
			t.carryOut(f, t.ensureEnding().close(t.loop.now, code, reason))
			t.settle(f) // close does nothing if the tunnel was closing already
			return
		}
		if f.dir == toClient && !t.serveSenders(len(b) > 0) {
			if t.phase(f) == relaying {
				f.keep(b, 0)
			}
			return
		}
		if len(b) == 0 {
			f.drop()
			t.settle(f)
			return
		}
		if fed = t.follow(f, b); f.frames.drops() {
			b = b[:fed]
		}
	}
}

// took notes that f's destination has taken bytes. For the client, see stalled; update
// begins a new time if more is waiting.
func (t *loopTunnel) took(f *loopFlow) {
	if f.dir == toClient {
		t.stall = 0
	}
}

// follow has frames track b, if senders wait only to the end of a message, and returns
// how many bytes of b may pass. A close frame is reported before it is written, so
// that its answer can't be seen first.
func (t *loopTunnel) follow(f *loopFlow, b []byte) int {
	if f.dir == toClient && t.senders != nil {
		b = b[:f.frames.rest(b)]
	}
	var pace *pacer
	if f.dir == toBackend && t.pace.Every != 0 {
		pace, t.pace.now = &t.pace, t.loop.now
	}
	messages := f.frames.messages
	n := f.frames.feed(b, pace)
	if f.frames.speaks(messages) {
		t.sent(f.dir)
	}
	if f.frames.closed {
		t.ensureEnding().closeFrame(f.dir, int(f.frames.code))
		t.refuseSenders()
	}
	if f.dir == toClient && !f.frames.following() {
		t.refuseSenders()
	}
	return n
}

// writeFailed deals with an error of writing to the destination.
func (t *loopTunnel) writeFailed(f *loopFlow, err error) {
	f.drop()
	if e := t.secure[1-f.dir]; e != nil {
		e.drop()
	}
	f.fin = false
	if f.dir == toClient {
		for t.senders != nil {
			t.answerSender(fmt.Errorf("%w: %w", ErrClosed, err))
		}
	}
	t.carryOut(f, t.ensureEnding().destinationLost(t.loop.now, f.dir, err))
}

// carryOut carries out the course's order about an event of f. For orders that aren't
// about one direction f may be nil.
func (t *loopTunnel) carryOut(f *loopFlow, order order) {
	switch order {
	case settleBoth:
		t.refuseSenders()
		t.settle(&t.flows[toBackend])
		t.settle(&t.flows[toClient])
	case halfClose:
		if f.dir == toClient {
			t.refuseSenders() // no sender has begun to write, or f would not have been read
		}
		f.fin = true
		t.settle(f)
	case cutBoth:
		t.finish()
	case resetBoth:
		syscall.SetsockoptLinger(int(t.fds[toClient]), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
		t.finish()
	}
}

// part ends the tunnel behind the end of f's source if both ends have sent their close frames,
// and the other one nothing since that is still to be read: to close a socket of which bytes
// are unread is a reset. It reports whether it has ended the tunnel.
func (t *loopTunnel) part(f *loopFlow) bool {
	back := &t.flows[1-f.dir]
	if !f.frames.closed || !back.frames.closed || t.phase(f) != over || t.closing() || !t.reads(back) || t.secure[back.dir] != nil {
		return false
	}
	var next [1]byte
	if _, err := sockets.Peek(t.source(back), next[:]); err != syscall.EAGAIN {
		return false
	}
	t.carryOut(nil, t.ending.parted())
	return true
}

// settle ends the writing to the destination, once nothing is under way there and if
// the course allows it.
func (t *loopTunnel) settle(f *loopFlow) {
	if t.busy(f) || t.gone {
		return
	}
	if t.closing() {
		settled, frame := t.ending.settle(t.loop.now, f.dir, f.frames.within(), f.frames.boundary())
		f.fin = f.fin || settled
		if frame != nil {
			t.forward(f, frame, len(frame))
			return // forward calls settle again behind the frame
		}
	}
	if f.fin {
		f.fin = false
		t.shutdown(f)
	}
}
