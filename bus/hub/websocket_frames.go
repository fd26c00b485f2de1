package hub

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/limpet-go/limpet/internal/closecode"
)

// The opcodes of frames (RFC 6455, section 5.2).
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// The bits before the opcode.
const (
	fin  = 0x80 // the message ends with this frame
	rsv1 = 0x40 // the message is compressed (RFC 7692, section 6)
	rsvs = 0x70 // those that only extensions use
)

// A frameReader makes messages of the bytes that a client sends, which come in any
// pieces (RFC 6455, section 5). It keeps what it hasn't seen the end of, and nothing
// between messages.
type frameReader struct {
	head       [14]byte // of the current frame
	heads      uint8    // bytes of it that have come
	inner      bool     // it is complete, and its payload is coming
	parts      bool     // the message has further frames
	kind       byte     // of the message: opText or opBinary
	inflates   bool     // the client may send compressed messages
	compressed bool     // the message is
	key        uint32   // the mask, turned so that its lowest byte is for the next byte of the payload

	left    uint64 // bytes of the current frame's payload that haven't come
	message []byte
	control []byte
}

// A violation is a reason to close the WebSocket.
type violation struct {
	code   int
	reason string
}

// frameEvents is told what a frameReader has read.
type frameEvents interface {
	begun() bool // whether the frame that has begun may come; a close frame always may
	message(payload []byte, binary bool)
	ping(payload []byte)
	closed(code int, reason string)
}

// feed reads b, of which it keeps nothing. A message may have limit bytes. After a
// violation, and after the client's close frame, it must not be called any more.
func (r *frameReader) feed(b []byte, limit int64, to frameEvents) (done bool, bad *violation) {
	for {
		if !r.inner {
			if b, r.inner = r.readHead(b); !r.inner {
				return false, nil
			}
			if bad := r.begin(limit); bad != nil {
				return true, bad
			}
			if r.opcode() != opClose && !to.begun() {
				return true, &violation{closecode.PolicyViolation, "too many messages"}
			}
		}
		n := int(min(uint64(len(b)), r.left))
		into := &r.message
		if r.opcode() >= opClose {
			into = &r.control
		}
		*into = r.unmask(*into, b[:n])
		r.left -= uint64(n)
		if b = b[n:]; r.left > 0 {
			return false, nil
		}
		r.inner, r.heads = false, 0
		if done, bad = r.end(limit, to); done {
			return done, bad
		}
	}
}

// within reports whether a frame has begun and not ended.
func (r *frameReader) within() bool { return r.heads > 0 }

func (r *frameReader) opcode() byte { return r.head[0] & 0xf }

// readHead takes what belongs to the head off b, and reports whether the head is complete.
func (r *frameReader) readHead(b []byte) (rest []byte, complete bool) {
	for {
		size := r.headSize()
		if r.heads == size {
			return b, true
		}
		n := copy(r.head[r.heads:size], b)
		if n == 0 {
			return b, false
		}
		r.heads += uint8(n)
		b = b[n:]
	}
}

// headSize returns how long the head is, as far as that is known.
func (r *frameReader) headSize() uint8 {
	size := uint8(2)
	if r.heads < size {
		return size
	}
	switch r.head[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if r.head[1]&0x80 != 0 {
		size += 4
	}
	return size
}

// begin looks at a head that has come.
func (r *frameReader) begin(limit int64) *violation {
	last, op := r.head[0]&fin != 0, r.opcode()
	first := op == opText || op == opBinary // of the frames of a message
	least := uint64(0)                      // the length that needs as many bytes as it was given
	r.left = uint64(r.head[1] & 0x7f)
	switch r.left {
	case 126:
		r.left, least = uint64(binary.BigEndian.Uint16(r.head[2:])), 126
	case 127:
		r.left, least = binary.BigEndian.Uint64(r.head[2:]), 1<<16
	}
	wrong := ""
	switch {
	case r.head[1]&0x80 == 0:
		wrong = "a frame that isn't masked"
	case r.head[0]&rsvs != 0 && !(r.head[0]&rsvs == rsv1 && r.inflates && first):
		wrong = "a frame of an extension"
	case r.left < least || r.left > math.MaxInt64:
		wrong = "a length that isn't written as it must be"
	case op >= opClose && (op > opPong || !last || r.left > 125):
		wrong = "a control frame that isn't one"
	case op > opBinary && op < opClose:
		wrong = "a frame of an unknown kind"
	case op == opContinuation && !r.parts:
		wrong = "a frame that continues nothing"
	case first && r.parts:
		wrong = "a message within a message"
	}
	if wrong != "" {
		return &violation{closecode.ProtocolError, wrong}
	}
	r.key = binary.LittleEndian.Uint32(r.head[r.heads-4:])
	if op >= opClose {
		return nil
	}
	if first {
		r.kind, r.compressed = op, r.head[0]&rsv1 != 0
	}
	r.parts = !last
	most := uint64(limit)
	if r.compressed {
		most = deflatedLimit(limit)
	}
	if r.left > most || uint64(len(r.message)) > most-r.left {
		return &violation{closecode.MessageTooBig, "a message that is too big"}
	}
	return nil
}

// end deals with a frame that is complete.
func (r *frameReader) end(limit int64, to frameEvents) (done bool, bad *violation) {
	switch op := r.opcode(); {
	case op == opClose:
		return r.endClose(to)
	case op >= opClose:
		if op == opPing {
			to.ping(r.control)
		}
		r.control = nil
	case !r.parts:
		message := r.message
		r.message = nil
		if r.compressed {
			if message, bad = inflated(message, limit); bad != nil {
				return true, bad
			}
		}
		if r.kind == opText && !utf8.Valid(message) { // other clients would close their connections if it was passed on
			return true, &violation{closecode.InvalidPayload, "text that is not UTF-8"}
		}
		to.message(message, r.kind == opBinary)
	}
	return false, nil
}

func (r *frameReader) endClose(to frameEvents) (done bool, bad *violation) {
	if len(r.control) == 0 {
		to.closed(closecode.NoStatus, "")
		return true, nil
	}
	code := 0
	if len(r.control) >= 2 {
		code = int(binary.BigEndian.Uint16(r.control))
	}
	if !closecode.Sendable(code) {
		return true, &violation{closecode.ProtocolError, "a close frame with a code that can't be"}
	}
	reason := r.control[2:]
	if !utf8.Valid(reason) {
		return true, &violation{closecode.InvalidPayload, "a reason that is not UTF-8"}
	}
	to.closed(code, string(reason))
	return true, nil
}

// unmask appends the next bytes of a payload to a message. The first time it makes room
// for all that is there, which most often is the whole message; more than what has come is
// never made room for, since it may never come.
func (r *frameReader) unmask(to, payload []byte) []byte {
	from := len(to)
	if to == nil {
		to = make([]byte, 0, len(payload))
	}
	to = append(to, payload...)
	b := to[from:]
	for key := uint64(r.key)<<32 | uint64(r.key); len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^key)
	}
	for i := range b {
		b[i] ^= byte(r.key)
		r.key = r.key>>8 | r.key<<24
	}
	return to
}
