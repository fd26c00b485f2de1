package upgrade

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// lane is one direction of a tunnel on a loop. How far it is on its way to the end
// is in the tunnel's course.
type lane struct {
	frames frames
	bytes  int64  // written, those of the head taken off
	stock  *stock // what the destination had no room for
	dir    direction
	fin    bool // the destination is shut down for writing when all is written
}

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

// An end's descriptor has the index of the direction that comes from it.
func (u *looped) source(f *lane) int      { return int(u.fds[f.dir]) }
func (u *looped) destination(f *lane) int { return int(u.fds[1-f.dir]) }

func (u *looped) phase(f *lane) phase {
	if u.ending == nil {
		return relaying
	}
	return u.ending.phases[f.dir]
}

// busy reports whether something is on its way that f must not be read behind.
func (u *looped) busy(f *lane) bool {
	return f.stock != nil || f.dir == toClient && u.senders != nil && u.senders.begun
}

// reads reports whether f wants what its source sends.
func (u *looped) reads(f *lane) bool {
	phase := u.phase(f)
	return phase == draining || phase == relaying && !u.busy(f)
}

// blocked reports whether f waits for room at its destination.
func (u *looped) blocked(f *lane) bool {
	return f.stock != nil || f.dir == toClient && u.turn()
}

// read takes in what there is at the source.
func (u *looped) read(f *lane) {
	n, err := read(u.source(f), u.loop.buf[:])
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
	case n <= 0:
		u.obey(f, u.begins().sourceEnded(u.loop.now, f.dir, os.NewSyscallError("read", err)))
	case u.phase(f) == draining:
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
				if u.phase(f) == relaying { // else it is the gateway's close frame
					f.bytes += int64(n)
				}
				b, fed = b[n:], fed-n
			}
		}
		if code, reason := int(f.frames.stop), f.frames.reason(); code != 0 && u.phase(f) == relaying {
			f.drop()
			u.obey(f, u.begins().close(u.loop.now, code, reason))
			u.settle(f) // which end leaves to who has closed the tunnel before
			return
		}
		if f.dir == toClient && !u.serve(len(b) > 0) {
			if u.phase(f) == relaying {
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
	if f.dir == toClient && u.senders != nil {
		b = b[:f.frames.rest(b)]
	}
	n := f.frames.feed(b)
	if f.frames.closed {
		u.begins().closeFrame(f.dir, int(f.frames.code))
		u.refuse()
	}
	if f.dir == toClient && !f.frames.following() {
		u.refuse()
	}
	return n
}

// lose deals with an error of writing to the destination, which is gone.
func (u *looped) lose(f *lane, err error) {
	f.drop()
	f.fin = false
	if f.dir == toClient {
		for u.senders != nil {
			u.answer(fmt.Errorf("%w: %w", ErrClosed, err))
		}
	}
	u.obey(f, u.begins().destinationLost(u.loop.now, f.dir, err))
}

// obey carries out what the course orders about an event of f.
func (u *looped) obey(f *lane, order order) {
	switch order {
	case settleBoth:
		u.refuse()
		u.settle(&u.lanes[toBackend])
		u.settle(&u.lanes[toClient])
	case halfClose:
		if f.dir == toClient {
			u.refuse() // none of them has begun, or f would not have been read
		}
		f.fin = true
		u.settle(f)
	case cutBoth:
		u.finish()
	case resetBoth:
		syscall.SetsockoptLinger(int(u.fds[toClient]), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
		u.finish()
	}
}

// settle ends the writing to the destination, as soon as nothing is under way there
// and the course lets it.
func (u *looped) settle(f *lane) {
	if u.busy(f) || u.gone {
		return
	}
	if u.closing() {
		settled, frame := u.ending.settle(u.loop.now, f.dir, f.frames.within(), f.frames.boundary())
		f.fin = f.fin || settled
		if frame != nil {
			u.pour(f, frame, len(frame))
			return // which comes here again
		}
	}
	if f.fin {
		f.fin = false
		syscall.Shutdown(u.destination(f), syscall.SHUT_WR)
	}
}
