package tokenbucket_test

import (
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/tokenbucket"
)

func TestBucket(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	b := tokenbucket.New(10, 3)
	var full time.Duration
	for i, step := range []struct{ now, wait time.Duration }{
		{0, 0}, {0, 0}, {0, 0}, {0, 100 * ms}, // the burst
		{99 * ms, ms}, {100 * ms, 0}, {100 * ms, 100 * ms}, // one each tenth of a second
		{time.Hour, 0}, {time.Hour, 0}, {time.Hour, 0}, {time.Hour, 100 * ms}, // no more than the burst is saved
	} {
		if wait := b.Take(&full, step.now); wait != step.wait {
			t.Fatalf("step %d, at %v: wait %v, want %v", i, step.now, wait, step.wait)
		}
	}
	full = 0
	for range 1000 {
		if wait := tokenbucket.New(0, 0).Take(&full, 0); wait != 0 {
			t.Fatalf("no limit lets wait for %v", wait)
		}
	}
}
