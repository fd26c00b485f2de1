package upgrade

import "github.com/limpet-go/limpet/internal/closecode"

// frames tracks one direction of a WebSocket byte by byte (RFC 6455, section 5.2),
// without holding any of it: where a frame ends, how many messages have passed, and
// whether a close frame has.
//
// Without a limit it lets all bytes pass. A frame that makes no sense makes it lose
// track for good, and then no frame may be put between two others any more. frames
// with off set have lost track from the start: that is how a protocol other than
// WebSocket is carried.
//
// With a limit, and for a client that is held to a rate, nothing passes that it has not
// counted. A frame that makes no sense sets stop, as one that is too big does, and the
// tunnel ends. What follows a close frame, behind which an end must not send anything
// (section 5.5.1), is dropped.
//
//	state     left by                                a close frame / message may be put in
//	boundary  the first byte of a header             yes / unless open
//	header    its last byte: payload, or its end     no
//	payload   its last byte: boundary, or closed     no
//	closed    nothing                                no
//	off       nothing                                no
//	stopped   nothing (stop is set)                  only if feed has left it at a boundary
type frames struct {
	limit    uint64 // in bytes of one message, 0 for none; noLimit is one that only counts
	messages int64
	size     uint64 // bytes of the message so far; counted only with a limit
	left     uint64 // bytes of the frame's payload that are still to come
	key      uint32 // the frame's masking key
	code     uint16 // of the close frame, closecode.NoStatus if it had none
	stop     uint16 // the close code to end the tunnel with, before the current frame passes

	masked bool // the frames come from a client
	off    bool // frames has lost track
	closed bool // a close frame has passed; what follows it is not tracked
	open   bool // a fragmented message has begun and not ended

	op   byte  // first byte of the frame's header
	have uint8 // bytes of the header seen; 0 at a boundary
	need uint8 // bytes of the header; known once two are seen
	got  uint8 // bytes of the close code seen
}

const (
	finBit    = 0x80
	noLimit   = 1 << 63 // longer than any message: no frame is longer than 1<<63 - 1
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

// speaks reports whether what was fed since there were so many messages is, for a lull, a
// message: from the client any part of one, and from the backend the end of one.
func (f *frames) speaks(messages int64) bool {
	if f.masked {
		return f.messages > messages || f.following() && !f.between()
	}
	return f.messages > messages && f.between()
}

// within reports whether a frame is under way whose end can be waited for.
func (f *frames) within() bool { return f.following() && f.have != 0 && f.stop == 0 }

// drops reports whether nothing that comes now may pass.
func (f *frames) drops() bool { return f.closed && f.limit != 0 }

// reason returns the reason that goes with stop.
func (f *frames) reason() string {
	switch f.stop {
	case closecode.MessageTooBig:
		return "message too big"
	case closecode.PolicyViolation:
		return "too many messages"
	}
	return "protocol error"
}

// more reports whether p ends within a frame to which all of p belongs.
func (f *frames) more(p []byte) bool {
	g := *f
	return g.next(p) == len(p) && g.within()
}

// rest returns how many bytes of p there are up to the next place for a message: all
// of them if there is none in p.
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

// feed tracks p and returns how much of it may pass: all of it, unless there is a
// limit. With one, what may pass ends before the frame that sets stop, or behind a
// close frame. If the frame that sets stop began before p, f stays within it: part of
// it has passed already. pace, if it isn't nil, counts each frame but a close frame, and
// the first one too many sets stop.
func (f *frames) feed(p []byte, pace *pacer) int {
	for n := 0; n < len(p); {
		if f.drops() {
			return n
		}
		whole := f.have == 0
		if whole && pace != nil && f.following() && p[n]&0xf != opClose && !pace.take() {
			f.stop = closecode.PolicyViolation
			return n
		}
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

// next tracks p up to the end of the current frame, or of p, and returns how far that
// is.
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

// header tracks the next byte of a frame's header.
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

// lose is called at a frame that makes no sense.
func (f *frames) lose() {
	if f.limit != 0 {
		f.stop = closecode.ProtocolError
	} else {
		f.off = true
	}
}

// starts reports whether f.op may be the first byte of a header here. The reserved
// bits belong to extensions and don't change where frames end.
func (f *frames) starts() bool {
	fin, op := f.op&finBit != 0, f.op&0xf
	if op >= opClose {
		return fin && op <= opPong
	}
	return op <= opBinary && (op == 0) == f.open
}

// valid reports whether c may be the second byte of a header.
func (f *frames) valid(c byte) bool {
	return (c&maskBit != 0) == f.masked && (f.op&opClose == 0 || c&^maskBit <= maxShort)
}

// opens reports whether more fragments have to follow the frame.
func (f *frames) opens() bool {
	if f.op&opClose != 0 { // a control frame may come between two fragments
		return f.open
	}
	return f.op&finBit == 0
}

// closeCode tracks bytes of a close frame's payload, whose first two are the code.
func (f *frames) closeCode(p []byte) {
	for _, c := range p {
		if f.got == 2 {
			return
		}
		f.code = f.code<<8 | uint16(c^byte(f.key>>(24-8*f.got)))
		f.got++
	}
}

// end is called at the end of a frame.
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
