package hub

import (
	"bytes"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/limpet-go/limpet/internal/closecode"
)

// A message is compressed once, however many members get it at the same time.
func TestFrameDeflatedOnce(t *testing.T) {
	t.Parallel()
	f := Text([]byte(strings.Repeat("once ", 1000)))
	var all [16][]byte
	var calls sync.WaitGroup
	for i := range all {
		calls.Go(func() { all[i] = f.deflated() })
	}
	calls.Wait()
	for _, b := range all {
		if &b[0] != &all[0][0] {
			t.Fatal("it was compressed twice")
		}
	}
}

// What is inflated has at most limit bytes, and what was deflated comes out as it was.
func FuzzInflated(f *testing.F) {
	for _, seed := range []string{
		"", "\x00", "\xf2\x48\xcd\xc9\xc9\x07\x00", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "\xff\xff", strings.Repeat("\x03\x00", 1000),
		"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", "\xed\xc0\x01\x0d\x00\x00\x00\xc2\xa0\xf7\x4f\x6d\x0e\x37\xa0",
	} {
		f.Add([]byte(seed), int64(5))
		f.Add([]byte(seed), int64(math.MaxInt64))
	}
	f.Fuzz(func(t *testing.T, data []byte, limit int64) {
		limit = max(limit, 1)
		if len(data) < 1<<10 || limit < 1<<20 { // else it may become a gigabyte
			got, bad := inflated(bytes.Clone(data), limit)
			if int64(len(got)) > limit || (bad != nil && bad.code != closecode.MessageTooBig && bad.code != closecode.InvalidPayload) {
				t.Errorf("%d bytes of %d, %v", len(got), limit, bad)
			}
		}
		d := deflaters.Get().(*deflater)
		small := bytes.Clone(d.deflate(data))
		d.release()
		if uint64(len(small)) > deflatedLimit(int64(len(data))) {
			t.Errorf("%d bytes have become %d", len(data), len(small))
		}
		if again, bad := inflated(small, int64(len(data))); bad != nil || !bytes.Equal(again, data) {
			t.Errorf("%q became %q, %v", data, again, bad)
		}
	})
}
