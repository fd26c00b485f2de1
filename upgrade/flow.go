package upgrade

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// flow is one direction of a tunnel on a pump.
type flow struct {
	*pumped
	src, dst net.Conn
	frames   frames
	bytes    int64
	room     [roomSize]byte // for reading, see read
	full     bool           // what was read last filled its room
	draining atomic.Bool
	turns
}

func (f *flow) run(head, early []byte) {
	ended := f.relay(head, early)
	f.seal()
	f.release()
	if !ended {
		f.drain()
	}
	if f.running.Add(-1) == 0 {
		f.finish()
	}
}

// relay passes on what comes from src until nothing more may be written. It
// reports whether src has ended by then.
func (f *flow) relay(head, early []byte) (ended bool) {
	if !f.deliver(head, early) {
		return false
	}
	for {
		b, buf, err := f.read()
		on := true
		if len(b) > 0 {
			f.last.Store(int64(time.Since(f.began)))
			on = f.pass(b)
		}
		if buf != nil {
			buffers.Put(buf)
		}
		switch {
		case !on:
			return false
		case err == nil:
			if q := f.quiet.Load(); q != 0 && f.closing.Load() == nil && !f.frames.drops() {
				f.allow(time.Duration(q))
			}
		case !f.failed(err):
			return !errors.Is(err, os.ErrDeadlineExceeded)
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
func (f *flow) read() (b []byte, buf *[]byte, err error) {
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
func (f *flow) pass(b []byte) bool {
	c := f.closing.Load()
	if c == nil {
		return f.deliver(nil, b)
	}
	if f.frames.within() {
		if n := f.frames.next(b); !f.write(nil, b[:n]) {
			return false
		}
	}
	return !f.shut(c, false)
}

// deliver passes on b, behind head, as long as the tunnel isn't closing. Where a
// message ends that others wait for, it lets them write.
func (f *flow) deliver(head, b []byte) bool {
	for len(head)+len(b) > 0 {
		f.take()
		part := b
		if f.waiting.Load() > 0 {
			part = b[:f.frames.rest(b)]
		}
		n := f.frames.feed(part)
		if f.frames.closed && !f.closeSeen.Swap(true) { // before its answer can come
			f.note(Summary{By: f.from(), Code: int(f.frames.code)})
		}
		if !f.write(head, part[:n]) {
			return false
		}
		if code, reason := int(f.frames.stop), f.frames.reason(); code != 0 {
			f.shut(f.end(code, reason, true, Summary{By: Gateway, Code: code, Reason: reason}), true)
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
func (f *flow) write(head, b []byte) bool {
	if len(head) > 0 {
		b = append(head, b...) // one packet
	}
	if len(b) == 0 { // which TLS would make a record of
		return true
	}
	n, err := f.dst.Write(b)
	f.bytes += int64(max(0, n-len(head)))
	if err != nil {
		f.lost(err)
	}
	return err == nil
}

// lost deals with an error of writing to dst, which is gone: the other flow,
// which reads dst, is to find what it left, and how it ended.
func (f *flow) lost(err error) {
	if f.closing.Load() != nil {
		return
	}
	if f == &f.down {
		f.note(Summary{By: Client, Err: err})
		f.clientLost.Store(true)
		if f.clientEnded.Load() {
			f.reset()
			return
		}
	}
	f.leave(drainTime)
}

// failed deals with an error of reading src and reports whether to go on.
func (f *flow) failed(err error) bool {
	if errors.Is(err, net.ErrClosed) { // by cut, or in place of a half-close
		return false
	}
	c := f.closing.Load()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if c == nil { // silent for too long after the other direction has ended
			f.note(Summary{By: Gateway, Err: err})
			f.cut()
			return false
		}
		if f.shut(c, false) {
			return false
		}
		f.src.SetReadDeadline(c.frameBy)
		return true
	}
	// TLS reports a connection that ended without its farewell as unexpected.
	eof := err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF)
	if eof {
		err = nil
		if f.websocket && !f.closeSeen.Load() {
			err = io.ErrUnexpectedEOF
		}
	}
	switch {
	case c != nil:
		f.shut(c, true)
	case f == &f.up:
		f.note(Summary{By: Client, Err: err})
		f.clientEnded.Store(true) // before looking at clientLost; write does it the other way round
		if !eof || f.clientLost.Load() {
			f.reset()
		} else {
			f.half(halfTime)
		}
	case f.websocket && !f.closeSeen.Load() && !f.clientEnded.Load():
		f.shut(f.end(1012, "backend lost", false, Summary{By: Backend, Code: 1012, Err: err}), true)
	default:
		f.note(Summary{By: Backend, Err: err})
		quiet := halfTime
		if f.websocket {
			quiet = drainTime
		}
		f.half(quiet)
	}
	return false
}

// shut ends the writing to dst, with a close frame if one can be put here, and
// reports whether it did: unless forced it waits for the end of a frame that is
// passing, for its time.
func (f *flow) shut(c *closing, force bool) bool {
	due := f == &f.down || c.toBackend
	if due && f.frames.within() && !force && time.Now().Before(c.frameBy) {
		return false
	}
	f.seal()
	if due && f.frames.boundary() {
		f.dst.Write(closeFrame(c.code, c.reason, f == &f.up))
	}
	closeWrite(f.dst)
	return true
}

// half passes the end of src on to dst, and leaves the other direction open.
func (f *flow) half(quiet time.Duration) {
	f.seal()
	if !closeWrite(f.dst) {
		f.dst.Close()
	}
	f.leave(quiet)
}

// leave is the end of f while the other flow goes on, for as long as it isn't
// silent for longer than quiet.
func (f *flow) leave(quiet time.Duration) {
	f.quiet.Store(int64(quiet))
	other := &f.up
	if f == other {
		other = &f.down
	}
	other.allow(quiet)
}

// allow lets src be silent for so long. A flow that is closing or draining has
// deadlines of its own: if one was overwritten here, waking it up has it set again.
func (f *flow) allow(quiet time.Duration) {
	f.src.SetReadDeadline(time.Now().Add(quiet))
	if f.closing.Load() != nil || f.draining.Load() {
		f.src.SetReadDeadline(past)
	}
}

// drain drops what src still sends; see drainTime.
func (f *flow) drain() {
	f.draining.Store(true)
	by := time.Now().Add(drainTime)
	if c := f.closing.Load(); c != nil {
		by = c.goneBy
	}
	for {
		f.src.SetReadDeadline(by)
		_, err := io.Copy(io.Discard, f.src)
		if !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(by) {
			return
		}
	}
}

func (f *flow) from() Side {
	if f == &f.up {
		return Client
	}
	return Backend
}

func closeWrite(conn net.Conn) bool {
	c, ok := conn.(interface{ CloseWrite() error })
	if ok {
		c.CloseWrite()
	}
	return ok
}
