package bus

import "testing"

// What has rung while a stream is read takes a bounded number of bytes, however large the
// entries are, and the newest ones are kept again when those before were dropped.
func TestRingsBound(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1 << 10, 16 << 10} {
		st := &stream{}
		for n := range uint64(1000) {
			b := ring{entry: entry{id: streamID{1, n}, data: make([]byte, size)}, whole: true}
			st.keep(b)
			bytes := 0
			for _, kept := range st.rings {
				bytes += len(kept.entry.data)
			}
			if len(st.rings) > maxRings || bytes > maxRingBytes {
				t.Fatalf("%d entries of %d bytes are kept", len(st.rings), size)
			}
			if last := st.rings[len(st.rings)-1]; last.entry.id != b.entry.id {
				t.Fatalf("entry %d isn't kept", n)
			}
		}
	}
}
