package upgrade

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// lane is one direction of a tunnel on a loop. How far it is on its way to the end
// is in the tunnel's course.
type loopFlow struct {
	frames  frames
	bytes   int64    // written, those of the head taken off
	pending *pending // what the destination had no room for
	dir     direction
	fin     bool // the destination is shut down for writing when all is written
}

// stock is what waits for room at the destination. It is borrowed while there is
// something.
type pending struct {
	room [chunkSize]byte
	b    []byte // most often within room
	fed  int    // of b, followed already: nobody else writes before it
}

const chunkSize = 64 << 10

var pendings = sync.Pool{New: func() any { return new(pending) }}

// keep puts b into stock.
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

func (f *loopFlow) drop() {
	if f.pending != nil {
		f.pending.b = nil
		pendings.Put(f.pending)
		f.pending = nil
	}
}

// An end's descriptor has the index of the direction that comes from it.
func (t *loopTunnel) source(f *loopFlow) int      { return int(t.fds[f.dir]) }
func (t *loopTunnel) destination(f *loopFlow) int { return int(t.fds[1-f.dir]) }

func (t *loopTunnel) phase(f *loopFlow) phase {
	if t.ending == nil {
		return relaying
	}
	return t.ending.phases[f.dir]
}

// busy reports whether something is on its way that f must not be read behind.
func (t *loopTunnel) busy(f *loopFlow) bool {
	return f.pending != nil || f.dir == toClient && t.senders != nil && t.senders.begun
}

// reads reports whether f wants what its source sends.
func (t *loopTunnel) reads(f *loopFlow) bool {
	phase := t.phase(f)
	return phase == discarding || phase == relaying && !t.busy(f)
}

// blocked reports whether f waits for room at its destination.
func (t *loopTunnel) blocked(f *loopFlow) bool {
	return f.pending != nil || f.dir == toClient && t.senderDue()
}

// read takes in what there is at the source.
func (t *loopTunnel) read(f *loopFlow) {
	n, err := read(t.source(f), t.loop.buf[:])
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
	case n <= 0:
		t.carryOut(f, t.ensureEnding().sourceEnded(t.loop.now, f.dir, os.NewSyscallError("read", err)))
	case t.phase(f) == discarding:
	default:
		t.last = t.loop.now
		b := t.loop.buf[:n]
		if !t.closing() {
			if !f.frames.drops() {
				t.extend()
			}
			t.forward(f, b, 0)
			return
		}
		n = f.frames.next(b) // it was within a frame, or would be settled
		t.forward(f, b[:n], n)
	}
}

// flush goes on with what waits for room. The source can't have been heard
// meanwhile.
func (t *loopTunnel) flush(f *loopFlow) {
	t.extend()
	if f.pending != nil {
		t.forward(f, f.pending.b, f.pending.fed)
	} else {
		t.forward(f, nil, 0)
	}
}

// pour passes b on, whose first fed bytes are followed already, and keeps what
// there is no room for. Where a message ends that senders wait for, it lets one
// of them write, and behind b all.
func (t *loopTunnel) forward(f *loopFlow, b []byte, fed int) {
	for {
		for fed > 0 {
			n, err := write(t.destination(f), b[:fed])
			switch {
			case err == syscall.EAGAIN:
				f.keep(b, fed)
				return
			case err == syscall.EINTR:
			case err != nil:
				t.writeFailed(f, os.NewSyscallError("write", err))
				return
			default:
				if t.phase(f) == relaying { // else it is the gateway's close frame
					f.bytes += int64(n)
				}
				b, fed = b[n:], fed-n
			}
		}
		if code, reason := int(f.frames.stop), f.frames.reason(); code != 0 && t.phase(f) == relaying {
			f.drop()
			t.carryOut(f, t.ensureEnding().close(t.loop.now, code, reason))
			t.settle(f) // which end leaves to who has closed the tunnel before
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

// follow follows b, to the end of a message if senders wait for that, and returns
// how far it may pass.
func (t *loopTunnel) follow(f *loopFlow, b []byte) int {
	if f.dir == toClient && t.senders != nil {
		b = b[:f.frames.rest(b)]
	}
	n := f.frames.feed(b)
	if f.frames.closed {
		t.ensureEnding().closeFrame(f.dir, int(f.frames.code))
		t.refuseSenders()
	}
	if f.dir == toClient && !f.frames.following() {
		t.refuseSenders()
	}
	return n
}

// lose deals with an error of writing to the destination, which is gone.
func (t *loopTunnel) writeFailed(f *loopFlow, err error) {
	f.drop()
	f.fin = false
	if f.dir == toClient {
		for t.senders != nil {
			t.answerSender(fmt.Errorf("%w: %w", ErrClosed, err))
		}
	}
	t.carryOut(f, t.ensureEnding().destinationLost(t.loop.now, f.dir, err))
}

// obey carries out what the course orders about an event of f.
func (t *loopTunnel) carryOut(f *loopFlow, order order) {
	switch order {
	case settleBoth:
		t.refuseSenders()
		t.settle(&t.flows[toBackend])
		t.settle(&t.flows[toClient])
	case halfClose:
		if f.dir == toClient {
			t.refuseSenders() // none of them has begun, or f would not have been read
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

// settle ends the writing to the destination, as soon as nothing is under way there
// and the course lets it.
func (t *loopTunnel) settle(f *loopFlow) {
	if t.busy(f) || t.gone {
		return
	}
	if t.closing() {
		settled, frame := t.ending.settle(t.loop.now, f.dir, f.frames.within(), f.frames.boundary())
		f.fin = f.fin || settled
		if frame != nil {
			t.forward(f, frame, len(frame))
			return // which comes here again
		}
	}
	if f.fin {
		f.fin = false
		syscall.Shutdown(t.destination(f), syscall.SHUT_WR)
	}
}
