package upgrade

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// flow is one direction of a tunnel on a pump.
type pumpFlow struct {
	*pumpTunnel
	dir      direction
	src, dst net.Conn
	frames   frames
	bytes    int64
	room     [roomSize]byte // for reading, see read
	full     bool           // what was read last filled its room
	clientLock
}

func (f *pumpFlow) run(head, early []byte) {
	f.copyAll(head, early)
	f.seal()
	f.release()
	f.discard()
	if f.running.Add(-1) == 0 {
		f.finish()
	}
}

// relay passes on what comes from src until nothing more may be written.
func (f *pumpFlow) copyAll(head, early []byte) {
	for on := f.deliver(head, early); on; {
		b, buf, err := f.read()
		if len(b) > 0 {
			f.last.Store(int64(f.now()))
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

// buffers are borrowed while many bytes are under way. A tunnel that waits holds
// none, wherever within a frame that is.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// roomSize holds most messages of a chat whole.
const roomSize = 250

// read waits for bytes with little room. This works for TLS too, where waiting for
// the socket would not: the connection may hold a record already. Only when the
// room was filled, and so there is more to come, a buffer is borrowed to read on;
// it is held longer only if what came ended exactly with the room. The bytes go
// alone, unless they are the start of a longer frame: one read more could wait for
// ever while a whole frame is held back.
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

// pass passes on b, or what of it may still pass, and reports whether more may.
func (f *pumpFlow) pass(b []byte) bool {
	closing := false
	if f.ending.Load() {
		f.mu.Lock()
		relays := f.course.phases[f.dir] == relaying
		closing = f.course.closing
		f.mu.Unlock()
		if !relays {
			return false
		}
	}
	if !closing {
		return f.deliver(nil, b)
	}
	if f.frames.within() {
		if n := f.frames.next(b); !f.write(nil, b[:n]) {
			return false
		}
	}
	return !f.settle()
}

// deliver passes on b, behind head, as long as the tunnel isn't closing. Where a
// message ends that others wait for, it lets them write.
func (f *pumpFlow) deliver(head, b []byte) bool {
	for len(head)+len(b) > 0 {
		f.take()
		part := b
		if f.waiting.Load() > 0 {
			part = b[:f.frames.rest(b)]
		}
		closed := f.frames.closed
		n := f.frames.feed(part)
		if f.frames.closed && !closed {
			f.closeFrame()
		}
		if !f.write(head, part[:n]) {
			return false
		}
		if code, reason := int(f.frames.stop), f.frames.reason(); code != 0 {
			f.close(code, reason)
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

// write writes b behind head.
func (f *pumpFlow) write(head, b []byte) bool {
	if len(head) > 0 {
		b = append(head, b...) // one packet
	}
	if len(b) == 0 { // which TLS would make a record of
		return true
	}
	n, err := f.dst.Write(b)
	f.bytes += int64(max(0, n-len(head)))
	if err != nil {
		f.writeFailed(err)
	}
	return err == nil
}

// lost deals with an error of writing to dst, which is gone.
func (f *pumpFlow) writeFailed(err error) {
	f.disconnect(f.happens(func(c *course, now time.Duration) order { return c.destinationLost(now, f.dir, err) }))
}

// closeFrame reports that a close frame passes. Nobody has to be woken for that.
func (f *pumpFlow) closeFrame() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ending.Store(true)
	f.course.closeFrame(f.dir, int(f.frames.code))
}

// active reports that the tunnel is not silent.
func (f *pumpFlow) active() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.course.active(f.now())
	if f.course.phases[f.dir] == relaying && !f.course.closing { // else the next read has to be interrupted
		f.setReadDeadline()
	}
}

// await sets the deadline of the course for the reads of src. f.mu is held.
func (f *pumpFlow) setReadDeadline() {
	var by time.Time
	if at := f.course.deadline(f.now(), f.dir); at != 0 {
		by = f.began.Add(at)
	}
	f.src.SetReadDeadline(by)
}

// look has the course do what is due by now, and returns in which phase the
// direction is then.
func (f *pumpFlow) check() (phase, order) {
	f.mu.Lock()
	order := f.course.expire(f.now(), f.dir, false)
	f.setReadDeadline()
	phase := f.course.phases[f.dir]
	f.mu.Unlock()
	f.disconnect(order)
	return phase, order
}

// failed deals with an error of reading src and reports whether to go on.
func (f *pumpFlow) readFailed(err error) bool {
	switch {
	case errors.Is(err, net.ErrClosed): // by disconnect, or in place of a half-close
		return false
	case errors.Is(err, os.ErrDeadlineExceeded):
		phase, order := f.check()
		return phase == relaying && !(order == settleBoth && f.settle())
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF): // as TLS reports an end without its farewell
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
		f.active() // the other direction's time begins here
	default:
		f.disconnect(order)
	}
	return false
}

// settle ends the writing to dst if the course lets it, and reports whether it did.
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

// drain drops what src still sends, for as long as the course says so.
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

func closeWrite(conn net.Conn) bool {
	c, ok := conn.(interface{ CloseWrite() error })
	if ok {
		c.CloseWrite()
	}
	return ok
}
