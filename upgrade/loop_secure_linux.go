package upgrade

import (
	"os"
	"syscall"

	"github.com/limpet-go/limpet/internal/sockets"
)

// What a tunnel on a loop does in another way for an end with TLS than for a plain
// socket. That TLS adds to a direction's state only what its destination has not taken
// (see unsent), and what its source holds (see readHeld).

// readSecure reads once from a source with TLS and forwards what came.
func (t *loopTunnel) readSecure(f *loopFlow, e *secureEnd) {
	if !e.holds {
		e.receive(t.source(f))
	}
	if !e.holds {
		return
	}
	full := len(e.in) == int(e.budget)
	n := e.decrypt(t.loop.buf[:])
	if e.out == nil { // else only flush of the other direction may, which then goes on there
		e.flush(t.source(f)) // answers of crypto/tls; if it fails, so does what is written next
	}
	if n > 0 {
		t.received(f, t.loop.buf[:n], full)
	}
}

// readHeld does what no event will tell to do, as soon as f's source may be read: it reads
// what TLS has read ahead, and reports the end to the course.
func (t *loopTunnel) readHeld(f *loopFlow) {
	e := t.secure[f.dir]
	if e == nil {
		return
	}
	for e.holds && !t.gone && t.reads(f) {
		t.readSecure(f, e)
	}
	if e.end != nil && !t.gone && t.reads(f) {
		e.told = true
		t.carryOut(f, t.ensureEnding().sourceEnded(t.loop.now, f.dir, e.reason()))
	}
}

// unsent reports whether TLS has bytes for f's destination that wait for room there.
func (t *loopTunnel) unsent(f *loopFlow) bool {
	e := t.secure[1-f.dir]
	return e != nil && e.out != nil
}

// write writes b to f's destination, or the first part of it.
func (t *loopTunnel) write(f *loopFlow, b []byte) (int, error) {
	if e := t.secure[1-f.dir]; e != nil {
		return e.write(t.destination(f), b)
	}
	return sockets.Send(t.destination(f), b)
}

// flushSecure sends what is unsent, and reports whether nothing is left of it.
func (t *loopTunnel) flushSecure(f *loopFlow) bool {
	if !t.unsent(f) {
		return true
	}
	e := t.secure[1-f.dir]
	before := len(e.out.b)
	if err := e.flush(t.destination(f)); err != nil {
		t.writeFailed(f, os.NewSyscallError("write", err))
		return false
	}
	if e.out == nil || len(e.out.b) < before {
		t.took(f)
	}
	return e.out == nil
}

// shutdown ends the writing to f's destination. TLS has only its own end, as the socket has
// to take what crypto/tls may have to answer.
func (t *loopTunnel) shutdown(f *loopFlow) {
	if e := t.secure[1-f.dir]; e != nil {
		e.closeNotify(t.destination(f))
		return
	}
	if back := &t.flows[1-f.dir]; t.ending.ended[back.dir] && t.done(back) && t.done(f) {
		return // finish is about to close the socket, of which all was read: that tells the other end the same
	}
	if t.part(f) {
		return
	}
	syscall.Shutdown(t.destination(f), syscall.SHUT_WR)
}

// closeNotify ends TLS at f's destination, if that has not happened yet.
func (t *loopTunnel) closeNotify(f *loopFlow) {
	if e := t.secure[1-f.dir]; e != nil {
		e.closeNotify(t.destination(f))
	}
}

// done reports whether nothing is left to do in f's direction. It doesn't wait for room for
// a close_notify: behind the tunnel's last byte that may take for ever.
func (t *loopTunnel) done(f *loopFlow) bool {
	if t.phase(f) != over {
		return false
	}
	return !t.busy(f) || t.unsent(f) && f.pending == nil && !f.fin && t.senders == nil
}
