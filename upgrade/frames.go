package upgrade

import "github.com/limpet-go/limpet/internal/closecode"

// frames follows one direction of a WebSocket byte by byte (RFC 6455, section
// 5.2) without holding any of it: where a frame ends, how many messages passed,
// whether a close frame did.
//
// Without a limit it never stands in the way of the bytes. What it can't make
// sense of makes it lose track for good, and then nothing may be put between two
// frames any more. A new one with off set has lost track from the start: not a
// WebSocket.
//
// With a limit nothing passes that it has not counted: a frame that makes no sense
// ends the tunnel as one that is too big does, and what follows a close frame,
// behind which an end must not send any more (section 5.5.1), is dropped.
type frames struct {
	limit    uint64 // of a message's bytes, 0 for none
	messages int64
	size     uint64 // of the message so far, while there is a limit
	left     uint64 // of the frame's payload
	key      uint32 // masking key
	code     uint16 // of the close frame, closecode.NoStatus if it had none
	stop     uint16 // the code to end the tunnel with, before the frame under way

	masked bool // the frames come from a client
	off    bool // lost track
	closed bool // a close frame has passed; what follows it is not looked at
	open   bool // between the fragments of a message

	op   byte  // first byte of the frame's header
	have uint8 // bytes of the header seen; 0 is a boundary
	need uint8 // bytes it has, known once two are seen
	got  uint8 // bytes of the close code seen
}

const (
	finBit    = 0x80
	opText    = 1
	opBinary  = 2
	opClose   = 8
	opPong    = 10
	maskBit   = 0x80
	maxShort  = 125 // the longest payload of a control frame
	lengthTwo = 126 // the length is in the next two bytes, with 127 in the next eight
)

// following reports whether f still knows where frames end.
func (f *frames) following() bool { return !f.off && !f.closed }

// boundary reports whether a frame may be put in here.
func (f *frames) boundary() bool { return f.following() && f.have == 0 }

// between reports whether a message may be put in here.
func (f *frames) between() bool { return f.boundary() && !f.open }

// within reports whether a frame is under way whose end can be waited for.
func (f *frames) within() bool { return f.following() && f.have != 0 && f.stop == 0 }

// drops reports whether nothing that comes may pass any more.
func (f *frames) drops() bool { return f.closed && f.limit != 0 }

// reason says what stop is about.
func (f *frames) reason() string {
	if f.stop == closecode.MessageTooBig {
		return "message too big"
	}
	return "protocol error"
}

// more reports whether all of p belongs to a frame that goes on behind p.
func (f *frames) more(p []byte) bool {
	g := *f
	return g.next(p) == len(p) && g.within()
}

// rest returns how much of p there is to the next place for a message: all, if
// none comes in p.
func (f *frames) rest(p []byte) int {
	g := *f
	for n := 0; n < len(p) && g.following() && g.stop == 0; {
		n += g.next(p[n:])
		if g.between() {
			return n
		}
	}
	return len(p)
}

// feed follows p and returns how much of it may pass: all, unless there is a
// limit. Then what may pass ends before a frame that has the tunnel stop, or
// behind a close frame. If the frame to stop at began before p, f is left within it.
func (f *frames) feed(p []byte) int {
	for n := 0; n < len(p); {
		if f.drops() {
			return n
		}
		whole := f.have == 0
		m := f.next(p[n:])
		if f.stop != 0 {
			if whole {
				f.have = 0
			}
			return n
		}
		n += m
	}
	return len(p)
}

// next follows p to the end of the current frame, or of p, and returns how far
// that was.
func (f *frames) next(p []byte) int {
	if !f.following() {
		return len(p)
	}
	n := 0
	for n < len(p) {
		if f.have < 2 || f.have < f.need {
			f.header(p[n])
			n++
		} else {
			m := int(min(f.left, uint64(len(p)-n)))
			if f.op&0xf == opClose {
				f.closeCode(p[n : n+m])
			}
			n += m
			f.left -= uint64(m)
		}
		if f.off {
			return len(p)
		}
		if f.stop != 0 {
			return n
		}
		if f.have >= 2 && f.have == f.need && f.left == 0 {
			f.end()
			return n
		}
	}
	return n
}

// header takes the next byte of a frame's header.
func (f *frames) header(c byte) {
	at := f.have
	f.have++
	switch {
	case at == 0:
		if f.op = c; !f.starts() {
			f.lose()
		}
		return
	case at == 1:
		f.left, f.key, f.need = uint64(c&^maskBit), 0, 2
		switch f.left {
		case lengthTwo:
			f.left, f.need = 0, 4
		case lengthTwo + 1:
			f.left, f.need = 0, 10
		}
		if !f.valid(c) {
			f.lose()
			return
		}
		f.open = f.opens()
		if f.masked {
			f.need += 4
		}
	case f.masked && at >= f.need-4:
		f.key = f.key<<8 | uint32(c)
	default:
		f.left = f.left<<8 | uint64(c)
		if f.left>>63 != 0 {
			f.lose()
			return
		}
	}
	if f.have == f.need && f.limit != 0 && f.op&opClose == 0 {
		// size never exceeds the limit, so this doesn't overflow.
		if f.left > f.limit-f.size {
			f.stop = closecode.MessageTooBig
			return
		}
		f.size += f.left
	}
}

// lose is for a frame that makes no sense.
func (f *frames) lose() {
	if f.limit != 0 {
		f.stop = closecode.ProtocolError
	} else {
		f.off = true
	}
}

// starts judges the first byte of a header. The reserved bits belong to extensions
// and don't change the framing.
func (f *frames) starts() bool {
	fin, op := f.op&finBit != 0, f.op&0xf
	if op >= opClose {
		return fin && op <= opPong
	}
	return op <= opBinary && (op == 0) == f.open
}

// valid judges the second one.
func (f *frames) valid(c byte) bool {
	return (c&maskBit != 0) == f.masked && (f.op&opClose == 0 || c&^maskBit <= maxShort)
}

// opens reports whether fragments follow the frame.
func (f *frames) opens() bool {
	if f.op&opClose != 0 { // it may come between two of them
		return f.open
	}
	return f.op&finBit == 0
}

// closeCode takes bytes of a close frame's payload; the code is the first two.
func (f *frames) closeCode(p []byte) {
	for _, c := range p {
		if f.got == 2 {
			return
		}
		f.code = f.code<<8 | uint16(c^byte(f.key>>(24-8*f.got)))
		f.got++
	}
}

// end is the end of a frame.
func (f *frames) end() {
	f.have = 0
	switch op := f.op & 0xf; {
	case op == opClose:
		f.closed = true
		if f.got < 2 {
			f.code = closecode.NoStatus
		}
	case op < opClose && f.op&finBit != 0:
		f.messages++
		f.size = 0
	}
}
