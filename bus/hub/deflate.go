package hub

import (
	"bytes"
	"compress/flate"
	"io"
	"math"
	"sync"

	"github.com/limpet-go/limpet/internal/closecode"
)

// Messages are compressed as permessage-deflate does it (RFC 7692, section 7.2) without context
// takeover: each by itself. So a client keeps nothing between messages, a message is compressed
// once for all clients, and compressors and decompressors are borrowed from pools for as long
// as a message needs them.

// deflateLeast is the length in bytes from which messages are compressed. A shorter one would
// hardly become smaller, and fits into one packet anyway.
const deflateLeast = 256

// deflateTail is what the sender of a compressed message has taken off its end, which is an
// empty block without its head, and then an empty block that is the last one.
const deflateTail = "\x00\x00\xff\xff" + "\x01\x00\x00\xff\xff"

// buffersKept is the size up to which the pools keep a buffer.
const buffersKept = 64 << 10

// compressed is the frame of a compressed message. It is built once for all members.
type compressed struct {
	build sync.Once
	bytes []byte
}

// deflated returns the message as one frame for clients with permessage-deflate, which is that
// of Bytes if the message isn't worth compressing. All calls return the same bytes, which must
// not be changed.
func (f *Frame) deflated() []byte {
	if len(f.payload) < deflateLeast {
		return f.Bytes()
	}
	if f.squeezed.Load() == nil {
		f.squeezed.CompareAndSwap(nil, new(compressed))
	}
	c := f.squeezed.Load()
	c.build.Do(func() {
		d := deflaters.Get().(*deflater)
		defer d.release()
		if b := d.deflate(f.payload); len(b) < len(f.payload) {
			c.bytes = newFrame(f.head()|rsv1, b)
		} else {
			c.bytes = f.Bytes()
		}
	})
	return c.bytes
}

// A deflater compresses messages.
type deflater struct {
	w   *flate.Writer
	out bytes.Buffer
}

// deflaters are pooled since each takes 1.2 MB.
var deflaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.BestSpeed) // fails for another level only; higher ones need twenty times as long to begin
	return &deflater{w: w}
}}

// deflate returns a message compressed, which is valid until release.
func (d *deflater) deflate(b []byte) []byte {
	d.w.Reset(&d.out) // which can't fail to be written to
	_, _ = d.w.Write(b)
	_ = d.w.Flush()
	return d.out.Bytes()[:d.out.Len()-4] // RFC 7692, section 7.2.1
}

func (d *deflater) release() {
	reuse(&d.out)
	deflaters.Put(d)
}

// reuse empties a buffer, and gives back the memory of one that a large message has needed.
func reuse(b *bytes.Buffer) {
	if b.Cap() > buffersKept {
		*b = bytes.Buffer{}
	}
	b.Reset()
}

// An inflater decompresses messages.
type inflater struct {
	in  bytes.Reader
	r   io.Reader // also a flate.Resetter
	out bytes.Buffer
}

// inflaters are pooled since each takes 40 KB.
var inflaters = sync.Pool{New: func() any { return &inflater{r: flate.NewReader(bytes.NewReader(nil))} }}

// inflated returns a message decompressed. It holds little more than limit bytes of it, however
// large the message would become.
func inflated(b []byte, limit int64) ([]byte, *violation) {
	d := inflaters.Get().(*inflater)
	defer func() {
		reuse(&d.out)
		d.in.Reset(nil)
		inflaters.Put(d)
	}()
	limit = min(limit, math.MaxInt64-1)
	rest := io.LimitedReader{R: d.r, N: limit + 1}
	// A block that says that it is the last one may be followed by others (RFC 7692, section
	// 7.2.3.4). The reader stops behind it, and reads no byte more than it needs.
	for d.in.Reset(append(b, deflateTail...)); d.in.Len() > 0; {
		_ = d.r.(flate.Resetter).Reset(&d.in, nil) // it never fails
		_, err := d.out.ReadFrom(&rest)
		switch {
		case rest.N == 0:
			return nil, &violation{closecode.MessageTooBig, "a message that is too big"}
		case err != nil:
			return nil, &violation{closecode.InvalidPayload, "a message that can't be decompressed"}
		}
	}
	return bytes.Clone(d.out.Bytes()), nil
}

// deflatedLimit returns how long a compressed message may be that has limit bytes. One that can't
// be compressed becomes longer by 5 bytes for each block, and blocks are at least some hundred
// bytes long.
func deflatedLimit(limit int64) uint64 { return uint64(limit) + uint64(limit)/8 + 64 }
