package upgrade

import (
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// lane is one direction of a tunnel on a loop: lanes[0] comes from the client,
// lanes[1] from the backend.
type lane struct {
	frames frames
	bytes  int64  // written, those of the head taken off
	stock  *stock // what the destination had no room for
	from   Side
	state  state
	ended  bool // nothing more comes from the source
	lost   bool // nothing can be written to the destination
	fin    bool // the destination is shut down for writing when all is written
}

type state uint8

const (
	relaying state = iota
	draining       // what comes is dropped; see drainTime
	over
)

// stock is what waits for room at the destination. It is borrowed while there is
// something.
type stock struct {
	room [stockSize]byte
	b    []byte // most often within room
	fed  int    // of b, followed already: nobody else writes before it
}

const stockSize = 64 << 10

var stocks = sync.Pool{New: func() any { return new(stock) }}

// keep puts b into stock.
func (f *lane) keep(b []byte, fed int) {
	if len(b) == 0 {
		f.drop()
		return
	}
	if f.stock == nil {
		f.stock = stocks.Get().(*stock)
		b = append(f.stock.room[:0], b...)
	}
	f.stock.b, f.stock.fed = b, fed
}

func (f *lane) drop() {
	if f.stock != nil {
		f.stock.b = nil
		stocks.Put(f.stock)
		f.stock = nil
	}
}

func (u *looped) source(f *lane) int      { return int(u.fds[f.from-1]) }
func (u *looped) destination(f *lane) int { return int(u.fds[2-f.from]) }

// toward returns the lane that leads to an end.
func (u *looped) toward(side Side) *lane { return &u.lanes[2-side] }

// busy reports whether something is on its way that f must not be read behind.
func (u *looped) busy(f *lane) bool {
	return f.stock != nil || f.from == Backend && u.senders != nil && u.senders.begun
}

// reads reports whether f wants what its source sends.
func (u *looped) reads(f *lane) bool {
	return f.state == draining || f.state == relaying && !u.busy(f)
}

// blocked reports whether f waits for room at its destination.
func (u *looped) blocked(f *lane) bool {
	return f.stock != nil || f.from == Backend && u.turn()
}

// read takes in what there is at the source.
func (u *looped) read(f *lane) {
	n, err := read(u.source(f), u.loop.buf[:])
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
	case n <= 0:
		u.failed(f, os.NewSyscallError("read", err))
	case f.state == draining:
	default:
		u.last = u.loop.now
		b := u.loop.buf[:n]
		if !u.closing() {
			if !f.frames.drops() {
				u.extend()
			}
			u.pour(f, b, 0)
			return
		}
		n = f.frames.next(b) // it was within a frame, or would be settled
		u.pour(f, b[:n], n)
	}
}

// flush goes on with what waits for room. The source can't have been heard
// meanwhile.
func (u *looped) flush(f *lane) {
	u.extend()
	if f.stock != nil {
		u.pour(f, f.stock.b, f.stock.fed)
	} else {
		u.pour(f, nil, 0)
	}
}

// pour passes b on, whose first fed bytes are followed already, and keeps what
// there is no room for. Where a message ends that senders wait for, it lets one
// of them write, and behind b all.
func (u *looped) pour(f *lane, b []byte, fed int) {
	for {
		for fed > 0 {
			n, err := write(u.destination(f), b[:fed])
			switch {
			case err == syscall.EAGAIN:
				f.keep(b, fed)
				return
			case err == syscall.EINTR:
			case err != nil:
				u.lose(f, os.NewSyscallError("write", err))
				return
			default:
				if f.state == relaying { // else it is the gateway's close frame
					f.bytes += int64(n)
				}
				b, fed = b[n:], fed-n
			}
		}
		if code, reason := int(f.frames.stop), f.frames.reason(); code != 0 && f.state == relaying {
			f.drop()
			u.end(code, reason, true, Summary{By: Gateway, Code: code, Reason: reason})
			u.settle(f) // which end leaves to who has closed the tunnel before
			return
		}
		if f.from == Backend && !u.serve(len(b) > 0) {
			if !f.lost {
				f.keep(b, 0)
			}
			return
		}
		if len(b) == 0 {
			f.drop()
			u.settle(f)
			return
		}
		if fed = u.follow(f, b); f.frames.drops() {
			b = b[:fed]
		}
	}
}

// follow follows b, to the end of a message if senders wait for that, and returns
// how far it may pass.
func (u *looped) follow(f *lane, b []byte) int {
	if f.from == Backend && u.senders != nil {
		b = b[:f.frames.rest(b)]
	}
	n := f.frames.feed(b)
	if f.frames.closed && !u.closeSeen { // before its answer can come
		u.closeSeen = true
		u.note(Summary{By: f.from, Code: int(f.frames.code)})
		u.refuse()
	}
	if f.from == Backend && !f.frames.following() {
		u.refuse()
	}
	return n
}

// failed deals with the end of the source, or an error of reading it.
func (u *looped) failed(f *lane, err error) {
	f.ended = true
	if f.state == draining {
		f.state = over
		return
	}
	reset := err != nil
	if !reset && u.websocket && !u.closeSeen {
		err = io.ErrUnexpectedEOF
	}
	switch {
	case u.closing():
		u.settle(f)
	case f.from == Client:
		u.note(Summary{By: Client, Err: err})
		if reset || u.toward(Client).lost {
			u.reset()
		} else {
			u.half(f, halfTime)
		}
	case u.websocket && !u.closeSeen && !u.lanes[0].ended:
		u.end(1012, "backend lost", false, Summary{By: Backend, Code: 1012, Err: err})
	default:
		u.note(Summary{By: Backend, Err: err})
		quiet := halfTime
		if u.websocket {
			quiet = drainTime
		}
		u.half(f, quiet)
	}
}

// half passes the end of the source on, and leaves the other direction open.
func (u *looped) half(f *lane, quiet time.Duration) {
	f.state = over
	if f.from == Backend {
		u.refuse() // nobody has begun, or f would not have been read
	}
	f.fin = true
	u.settle(f)
	u.leave(quiet)
}

// lose deals with an error of writing to the destination, which is gone: the
// other lane, which reads it, is to find what it left, and how it ended.
func (u *looped) lose(f *lane, err error) {
	f.drop()
	f.lost, f.fin = true, false
	if f.from == Backend {
		for u.senders != nil {
			u.answer(fmt.Errorf("%w: %w", ErrClosed, err))
		}
	}
	switch {
	case f.state != relaying:
	case f.ended:
		f.state = over
	default:
		f.state = draining
	}
	if u.closing() {
		return
	}
	if f.from == Backend {
		u.note(Summary{By: Client, Err: err})
		if u.lanes[0].ended {
			u.reset()
			return
		}
	}
	u.leave(drainTime)
	u.ending.drainBy = u.ending.quietBy
}

// settle ends the writing to the destination when the tunnel is closing, with a
// close frame if one can be put here: unless the source has ended it waits for
// the end of a frame that is passing, for its time.
func (u *looped) settle(f *lane) {
	if u.busy(f) {
		return
	}
	if f.state == relaying && u.closing() {
		e := u.ending
		due := f.from == Backend || e.toBackend
		if due && f.frames.within() && !f.ended && u.loop.now < e.frameBy {
			return
		}
		f.state, f.fin = draining, true
		if f.ended {
			f.state = over
		}
		if due && f.frames.boundary() {
			frame := closeFrame(e.code, e.reason, f.from == Client)
			u.pour(f, frame, len(frame))
			return // which comes here again
		}
	}
	if f.fin {
		f.fin = false
		syscall.Shutdown(u.destination(f), syscall.SHUT_WR)
	}
}
