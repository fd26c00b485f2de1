package hub

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
)

// A Frame is one message. It may be sent any number of times, to any number of members
// at once, by several goroutines: the bytes of its WebSocket frame are built only once.
type Frame struct {
	payload []byte
	binary  bool

	build    sync.Once
	bytes    []byte
	lined    atomic.Pointer[Frame]      // see bare
	squeezed atomic.Pointer[compressed] // see deflated
}

// Text returns a text message. The payload is kept and must not be changed. It must
// be UTF-8 (RFC 6455, section 5.6), which isn't checked.
func Text(payload []byte) *Frame { return &Frame{payload: payload} }

// Binary returns a binary message. The payload is kept and must not be changed.
func Binary(payload []byte) *Frame { return &Frame{payload: payload, binary: true} }

// JSON returns a text message that is v as JSON, or an error if v doesn't marshal.
func JSON(v any) (*Frame, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("hub: a message: %w", err)
	}
	return Text(b), nil
}

// Payload returns the content of the message, which must not be changed.
func (f *Frame) Payload() []byte { return f.payload }

// IsBinary reports whether the message is binary; otherwise it is text.
func (f *Frame) IsBinary() bool { return f.binary }

// Bytes returns the message as one frame of a WebSocket server, unmasked and without
// extensions (RFC 6455, section 5.2). The first call builds it. All calls return the
// same bytes, which must not be changed.
func (f *Frame) Bytes() []byte {
	f.build.Do(func() {
		if f.bytes != nil {
			return // it is a ping or a pong, which pop has made
		}
		f.bytes = newFrame(f.head(), f.payload)
	})
	return f.bytes
}

// head returns the first byte of the message's frame.
func (f *Frame) head() byte {
	if f.binary {
		return fin | opBinary
	}
	return fin | opText
}

// newFrame returns the frame of a server (RFC 6455, section 5.2).
func newFrame(head byte, payload []byte) []byte {
	n := len(payload)
	b := append(make([]byte, 0, 10+n), head)
	switch {
	case n < 126:
		b = append(b, byte(n))
	case n <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}
