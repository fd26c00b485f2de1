package upgrade

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// A pumpFlow is one direction of a tunnel on a pump, and belongs to the goroutine that
// runs it. Its life:
//
//	copyAll   passes bytes on until its direction is no longer relaying
//	seal      waits for a sender that is writing to the client, and keeps out others
//	discard   reads and drops what src still sends, while the direction is discarding
//	finish    for the flow that ends last
type pumpFlow struct {
	*pumpTunnel
	dir      direction
	src, dst net.Conn
	frames   frames
	pace     *pacer // of the client's messages; nil for none
	bytes    int64
	room     [roomSize]byte // what read reads into
	full     bool           // the last read filled its buffer
	clientLock
}

// run carries the direction from its start to its end. head and early are written
// first.
func (f *pumpFlow) run(head, early []byte) {
	f.copyAll(head, early)
	f.seal()
	f.release()
	f.discard()
	if f.running.Add(-1) == 0 {
		f.finish()
	}
}

// copyAll passes on what comes from src until nothing more may be written to dst.
func (f *pumpFlow) copyAll(head, early []byte) {
	for on := f.deliver(head, early); on; {
		if f.dir == toClient {
			f.waits.Store(true)
		}
		b, buf, err := f.read()
		if len(b) > 0 {
			now := f.now()
			f.last.Store(int64(now))
			if f.dir == toClient {
				f.waits.Store(false)
				if !f.full { // or else it may be a part of what the kernel has had for long
					f.spoken.Store(int64(now))
					f.tunnel.heard()
				}
			}
			if f.pace != nil {
				f.pace.now = now
			}
			on = f.pass(b)
		}
		if buf != nil {
			buffers.Put(buf)
		}
		switch {
		case !on:
		case err != nil:
			on = f.readFailed(err)
		case f.ending.Load() && !f.frames.drops():
			f.active()
		}
	}
}

// buffers are borrowed while many bytes are under way. A tunnel that waits for bytes
// holds none, whether it waits between two frames or within one, with one exception:
// see read.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// roomSize is enough for most messages of a chat.
const roomSize = 250

// read waits for bytes with a small buffer of the flow's own. This works for TLS too:
// to wait for the socket to be readable would not, since the connection may already
// hold a decrypted record. Only when the small buffer was filled, so that there is
// probably more to read, a big one is borrowed for the next read. If what came ended
// exactly with the small buffer, that read waits with the big one, and may wait long:
// nothing but a read deadline could tell, which would cost each message. The bytes of
// the small buffer are returned at once, unless they are the start of a longer frame:
// another read could wait forever while a whole frame is held back.
func (f *pumpFlow) read() (b []byte, buf *[]byte, err error) {
	n := 0
	if !f.full {
		n, err = f.src.Read(f.room[:])
		f.full = n == len(f.room)
		if !f.full || err != nil || !f.frames.more(f.room[:n]) {
			return f.room[:n], nil, err
		}
	}
	buf = buffers.Get().(*[]byte)
	m, err := f.src.Read((*buf)[copy(*buf, f.room[:n]):])
	n += m
	f.full = n == len(*buf)
	return (*buf)[:n], buf, err
}

// pass passes on b, or as much of it as may still pass, and reports whether more may
// follow.
func (f *pumpFlow) pass(b []byte) bool {
	closing, lingers := false, false
	if f.ending.Load() {
		f.mu.Lock()
		relays := f.course.phases[f.dir] == relaying
		closing, lingers = f.course.closing, f.course.lingersIn(f.dir)
		f.mu.Unlock()
		if !relays {
			return false
		}
	}
	if !closing {
		return f.deliver(nil, b)
	}
	if lingers {
		return f.deliver(nil, b) && !f.settle()
	}
	if f.frames.within() {
		if n := f.frames.next(b); !f.write(nil, b[:n]) {
			return false
		}
	}
	return !f.settle()
}

// deliver writes head and then b, while the tunnel isn't closing. Where a message ends
// and senders wait, it releases the client's lock to them.
func (f *pumpFlow) deliver(head, b []byte) bool {
	for len(head)+len(b) > 0 {
		f.take()
		part := b
		if f.waiting.Load() > 0 {
			part = b[:f.frames.rest(b)]
		}
		closed := f.frames.closed
		messages := f.frames.messages
		n := f.frames.feed(part, f.pace)
		if f.frames.speaks(messages) {
			f.spoke()
		}
		if f.frames.closed && !closed {
			f.closeFrame()
		}
		if !f.write(head, part[:n]) {
			return false
		}
		if code, reason := int(f.frames.stop), f.frames.reason(); code != 0 {
			f.happens(func(c *course, now time.Duration) order { return c.close(now, code, reason) })
			f.settle()
			return false
		}
		if !f.frames.following() {
			f.seal()
		}
		if !f.frames.following() || f.frames.between() {
			f.release()
		}
		head, b = nil, b[len(part):]
	}
	return true
}

// write writes head and b to dst. The bytes of head are not counted.
func (f *pumpFlow) write(head, b []byte) bool {
	if len(head) > 0 {
		b = append(head, b...) // in one packet
	}
	if len(b) == 0 { // TLS would send an empty record
		return true
	}
	f.writing(true)
	n, err := f.dst.Write(b)
	f.writing(false)
	f.bytes += int64(max(0, n-len(head)))
	if err != nil {
		f.writeFailed(err)
	}
	return err == nil
}

// writing notes that a write to the client begins or has ended, for stalled.
func (f *pumpFlow) writing(begins bool) {
	switch {
	case f.dir != toClient || f.tunnel.proxy.StallTimeout <= 0:
	case begins:
		f.stuck.Store(int64(max(1, f.now())))
	default:
		f.stuck.Store(0)
	}
}

// writeFailed reports that dst can't be written to because of err.
func (f *pumpFlow) writeFailed(err error) {
	f.disconnect(f.happens(func(c *course, now time.Duration) order { return c.destinationLost(now, f.dir, err) }))
}

// closeFrame reports that a close frame is about to pass. It changes no deadline, so
// neither flow has to be woken.
func (f *pumpFlow) closeFrame() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ending.Store(true)
	f.course.closeFrame(f.dir, int(f.frames.code))
}

// spoke notes a message in f's direction for the next lull.
func (f *pumpFlow) spoke() {
	if f.dir == toBackend {
		f.asked.Store(max(1, f.last.Load()))
	}
	f.answered.Store(f.dir == toClient)
	if f.ending.Load() {
		f.mu.Lock()
		f.course.sent(f.now(), f.dir)
		f.mu.Unlock()
	}
}

// active reports that the tunnel is not silent. While the direction is about to stop
// it leaves the read's deadline in the past, or the flow would miss what has woken it.
func (f *pumpFlow) active() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.course.active(f.now())
	if f.course.phases[f.dir] == relaying && !f.course.closing {
		f.setReadDeadline()
	}
}

// setReadDeadline has the next read of src end when the course has to be asked again.
// f.mu is held.
func (f *pumpFlow) setReadDeadline() {
	var by time.Time
	if at := f.course.deadline(f.now(), f.dir); at != 0 {
		by = f.began.Add(at)
	}
	f.src.SetReadDeadline(by)
}

// check has the course do what is due by now. It returns the phase that the direction
// is in afterwards, and the course's order; closing the connections is done already.
func (f *pumpFlow) check() (phase, order) {
	f.mu.Lock()
	before := f.course.closing
	order := f.course.expire(f.now(), f.dir, false)
	if f.course.closing && !before {
		f.wake(before)
	}
	f.setReadDeadline()
	phase := f.course.phases[f.dir]
	f.mu.Unlock()
	f.disconnect(order)
	return phase, order
}

// readFailed deals with an error of reading src, and reports whether to go on.
func (f *pumpFlow) readFailed(err error) bool {
	switch {
	case errors.Is(err, net.ErrClosed): // disconnect closed it, or the other flow in place of a half-close
		return false
	case errors.Is(err, os.ErrDeadlineExceeded):
		phase, order := f.check()
		return phase == relaying && !(order == settleBoth && f.settle())
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF): // the latter is TLS that ended without close_notify
		err = nil
	}
	order := f.happens(func(c *course, now time.Duration) order { return c.sourceEnded(now, f.dir, err) })
	switch order {
	case settleBoth:
		f.settle()
	case halfClose:
		f.seal()
		if !closeWrite(f.dst) {
			f.dst.Close()
		}
		f.active() // seal may have waited: the time of the other direction begins now
	default:
		f.disconnect(order)
	}
	return false
}

// settle ends the writing to dst if the course allows it, and reports whether it did.
func (f *pumpFlow) settle() bool {
	f.mu.Lock()
	settled, frame := f.course.settle(f.now(), f.dir, f.frames.within(), f.frames.boundary())
	f.mu.Unlock()
	if !settled {
		return false
	}
	f.seal()
	if frame != nil {
		f.dst.Write(frame)
	}
	closeWrite(f.dst)
	return true
}

// discard reads and drops what src still sends, while the direction is discarding.
func (f *pumpFlow) discard() {
	for {
		if phase, _ := f.check(); phase != discarding {
			return
		}
		if _, err := io.Copy(io.Discard, f.src); !errors.Is(err, os.ErrDeadlineExceeded) {
			f.happens(func(c *course, now time.Duration) order { return c.sourceEnded(now, f.dir, err) })
			return
		}
	}
}

// closeWrite shuts down the writing to conn, and reports whether conn can do that.
func closeWrite(conn net.Conn) bool {
	c, ok := conn.(interface{ CloseWrite() error })
	if ok {
		c.CloseWrite()
	}
	return ok
}
