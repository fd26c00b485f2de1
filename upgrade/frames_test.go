package upgrade

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"unsafe"

	"github.com/limpet-go/limpet/internal/closecode"
)

// track is what the reference says of a stream.
type track struct {
	boundaries map[int]bool
	seams      map[int]bool // boundaries between messages
	messages   int64
	code       uint16
	stop       uint16
	closed     bool
	off        bool
	pass       int // bytes that may pass
}

// reference reads a whole stream the straightforward way.
func reference(b []byte, masked bool, limit uint64) track {
	tr := track{boundaries: map[int]bool{0: true}, seams: map[int]bool{0: true}, pass: len(b)}
	fragments := false
	var message uint64
	for at := 0; at < len(b); {
		bad := func() track {
			if tr.off = limit == 0; !tr.off {
				tr.stop, tr.pass = 1002, at
			}
			return tr
		}
		p := b[at:]
		fin, op := p[0]&0x80 != 0, p[0]&0xf
		switch op {
		case 0:
			if !fragments {
				return bad()
			}
		case 1, 2:
			if fragments {
				return bad()
			}
		case 8, 9, 10:
			if !fin {
				return bad()
			}
		default:
			return bad()
		}
		if len(p) < 2 {
			return tr
		}
		size, head := uint64(p[1]&0x7f), 2
		if (p[1]&0x80 != 0) != masked || op >= 8 && size > 125 {
			return bad()
		}
		if op < 8 {
			fragments = !fin
		}
		if size >= 126 {
			head = map[uint64]int{126: 4, 127: 10}[size]
			if len(p) < head {
				return tr
			}
			size = binary.BigEndian.Uint64(append(make([]byte, 10-head), p[2:head]...))
			if size>>63 != 0 {
				return bad()
			}
		}
		var mask [4]byte
		if masked {
			if len(p) < head+4 {
				return tr
			}
			copy(mask[:], p[head:])
			head += 4
		}
		if op < 8 && limit > 0 {
			if size > limit || message+size > limit {
				tr.stop, tr.pass = 1009, at
				return tr
			}
			message += size
		}
		if uint64(len(p)-head) < size {
			return tr
		}
		at += head + int(size)
		switch {
		case op == 8:
			tr.closed, tr.code = true, 1005
			if size >= 2 {
				tr.code = uint16(p[head]^mask[0])<<8 | uint16(p[head+1]^mask[1])
			}
			if limit > 0 {
				tr.pass = at
			}
			return tr
		case op < 8 && fin:
			tr.messages++
			message = 0
		}
		tr.boundaries[at] = true
		tr.seams[at] = !fragments
	}
	return tr
}

func FuzzFrames(f *testing.F) {
	for _, masked := range []bool{false, true} {
		mask := func(b []byte) []byte {
			if masked {
				b[1] |= 0x80
				b = append(b[:2:2], append([]byte{0, 0, 0, 0}, b[2:]...)...)
			}
			return b
		}
		text := mask([]byte("\x81\x05hello"))
		for _, stream := range [][]byte{
			text,
			append(append(mask([]byte("\x01\x02he")), mask([]byte("\x89\x00"))...), mask([]byte("\x80\x03llo"))...),
			append(bytes.Clone(text), closeFrame(1012, "drain", masked)...),
			append(closeFrame(0, "", masked), text...),
			append([]byte{0x82, 126, 1, 0}, make([]byte, 300)...),
			append([]byte{0x82, 127, 0, 0, 0, 0, 0, 0, 1, 0}, make([]byte, 300)...),
			{0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0},
			{0x83, 0}, {0x80, 0}, {0x08, 0}, {0x89, 126},
		} {
			for _, limit := range []uint16{0, 4, 200} {
				f.Add(stream, masked, uint64(3), limit)
				f.Add(stream, masked, uint64(0x9e3779b97f4a7c15), limit)
			}
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, masked bool, cuts uint64, limit uint16) {
		fr := frames{masked: masked, limit: uint64(limit)}
		feed := func(at, n int) (passed int) {
			t.Helper()
			passed = fr.feed(stream[at:at+n], nil)
			if passed != n && limit == 0 {
				t.Fatalf("bytes from %d: %d of %d may pass", at, passed, n)
			}
			return passed
		}
		passed := 0
		for at := 0; at < len(stream) && fr.stop == 0; {
			// The cuts come from the fuzzer: chunks of 1 to 64 bytes.
			n := min(int(cuts&63)+1, len(stream)-at)
			cuts = cuts*6364136223846793005 + 1442695040888963407
			more := fr.more(stream[at : at+1])
			passed += feed(at, 1)
			if more != fr.within() {
				t.Fatalf("byte %d: more %v, then within %v", at, more, fr.within())
			}
			if fr.stop != 0 {
				n = 1
			} else {
				passed += feed(at+1, n-1)
			}
			at += n
			want := reference(stream[:at], masked, uint64(limit))
			if fr.off != want.off || fr.closed != want.closed || fr.messages != want.messages ||
				fr.stop != want.stop || fr.closed && fr.code != want.code {
				t.Fatalf("after %d bytes %+v, want %+v", at, fr, want)
			}
			// Pieces of the header of a frame to stop at may have passed by themselves.
			if header := passed - want.pass; header < 0 || header > 0 && (fr.stop == 0 || header >= 14) {
				t.Fatalf("%d of %d bytes passed, want %d", passed, at, want.pass)
			}
			wantBoundary := want.boundaries[at] && !want.off && !want.closed
			if fr.stop != 0 {
				wantBoundary = passed == want.pass
			}
			if fr.boundary() != wantBoundary {
				t.Fatalf("after %d bytes boundary %v, want %v", at, fr.boundary(), wantBoundary)
			}
		}
		// All at once it comes to the same.
		want := reference(stream, masked, uint64(limit))
		one := frames{masked: masked, limit: uint64(limit)}
		if n := one.feed(stream, nil); n != want.pass {
			t.Fatalf("%d of %d bytes may pass at once, want %d", n, len(stream), want.pass)
		}
		if one.code = fr.code; fr.stop != 0 {
			one.have = fr.have // a boundary, where nothing has passed
		}
		if one != fr {
			t.Fatalf("at once %+v, want %+v", one, fr)
		}
		// And frame by frame.
		one = frames{masked: masked, limit: uint64(limit)}
		for rest := stream; len(rest) > 0 && one.stop == 0; {
			n := one.next(rest)
			if rest = rest[n:]; len(rest) > 0 && one.following() && !one.boundary() && one.stop == 0 {
				t.Fatalf("%d bytes before the end: next stopped within a frame", len(rest))
			}
		}
		if one.code = fr.code; fr.stop != 0 {
			one.have = fr.have
		}
		if one != fr {
			t.Fatalf("%+v, want %+v", one, fr)
		}
		// From message to message none is missed.
		one = frames{masked: masked, limit: uint64(limit)}
		for at := 0; at < len(stream) && one.stop == 0; {
			n := one.rest(stream[at:])
			for i := at + 1; i < at+n; i++ {
				if want.seams[i] {
					t.Fatalf("the end of a message at %d was missed from %d to %d", i, at, at+n)
				}
			}
			one.feed(stream[at:at+n], nil)
			if at += n; at < len(stream) && !want.seams[at] {
				t.Fatalf("no message ends at %d", at)
			}
		}
	})
}

func TestFrameLimit(t *testing.T) {
	stream := []byte("\x81\x03abc\x01\x02ab\x89\x05pings\x80\x02cd")
	for limit, want := range map[uint64]int{0: 23, 4: 20, 3: 16, 2: 0, 1: 0} {
		for _, split := range []bool{false, true} {
			fr, passed := frames{limit: limit}, 0
			if !split {
				passed = fr.feed(stream, nil)
			} else {
				for i := range stream {
					passed += fr.feed(stream[i:i+1], nil)
					if fr.stop != 0 {
						break
					}
				}
			}
			wantOver := limit != 0 && limit < 4
			want := want
			if limit == 0 || limit == 4 {
				want = len(stream)
			} else if split {
				want++ // the header's first byte was gone
			}
			over := fr.stop == closecode.MessageTooBig
			if over != wantOver || passed != want {
				t.Errorf("limit %d, split %v: over %v, %d passed, want %d", limit, split, over, passed, want)
			}
			if wantOver && fr.boundary() == split {
				t.Errorf("limit %d, split %v: boundary %v", limit, split, fr.boundary())
			}
		}
	}
	huge := frames{limit: 10}
	if n := huge.feed([]byte{0x82, 127, 0x7f, 255, 255, 255, 255, 255, 255, 255}, nil); n != 0 || huge.stop != closecode.MessageTooBig {
		t.Error("a huge message passes")
	}
}

func TestCloseFrame(t *testing.T) {
	long := "a reason of more than 123 bytes, which is cut before the character that would not fit " + "ääääääääääääääääääääääää"
	for _, test := range []struct {
		code   int
		reason string
		want   string
	}{
		{1012, "drain", "\x88\x07\x03\xf4drain"},
		{1001, "", "\x88\x02\x03\xe9"},
		{4999, "", "\x88\x02\x13\x87"},
		{1005, "dropped", "\x88\x00"}, {1006, "", "\x88\x00"}, {0, "", "\x88\x00"}, {999, "", "\x88\x00"}, {5000, "", "\x88\x00"}, {1015, "", "\x88\x00"}, {1016, "", "\x88\x00"}, {2999, "", "\x88\x00"},
		{1000, long, "\x88\x7c\x03\xe8" + long[:122]},
	} {
		if got := closeFrame(test.code, test.reason, false); string(got) != test.want {
			t.Errorf("%d: %q, want %q", test.code, got, test.want)
		}
		got := closeFrame(test.code, test.reason, true)
		for i := range got[6:] {
			got[6+i] ^= got[2+i%4]
		}
		if string(got[6:]) != test.want[2:] || got[1] != test.want[1]|0x80 {
			t.Errorf("%d masked: %q", test.code, got)
		}
	}
}

func TestFramesSize(t *testing.T) {
	if size := unsafe.Sizeof(frames{}); size > 48 {
		t.Errorf("%d bytes for each direction of each tunnel", size)
	}
}

func BenchmarkFrames(b *testing.B) {
	for _, size := range []int{16, 64, 1024, 16 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			msg := []byte{0x82, 0x80 | 126, byte(size >> 8), byte(size), 1, 2, 3, 4}
			chunk := append(msg, make([]byte, size)...)
			f := frames{masked: true}
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			for b.Loop() {
				f.feed(chunk, nil)
			}
		})
	}
}
