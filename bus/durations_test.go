package bus

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// What takes exactly a bound counts below it, as in Prometheus.
func TestDurations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d durations
		var want Durations
		for _, took := range []time.Duration{0, 100 * time.Microsecond, 100*time.Microsecond + 1, time.Second, 2500 * time.Millisecond, time.Minute} {
			began := time.Now()
			time.Sleep(took)
			d.since(began)
			want.Add(took)
		}
		got := d.load()
		if got != want {
			t.Errorf("got %v, by Add %v", got, want)
		}
		want = Durations{Sum: time.Minute + 3500*time.Millisecond + 200*time.Microsecond + 1}
		want.Counts[0], want.Counts[1], want.Counts[12], want.Counts[13], want.Counts[14] = 2, 1, 1, 1, 1
		if got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		bounds := got.Bounds()
		if len(bounds) != len(got.Counts)-1 || !slices.IsSorted(bounds) {
			t.Errorf("bounds %v", bounds)
		}
		if bounds[0] = 0; got.Bounds()[0] == 0 {
			t.Error("the bounds can be changed")
		}
	})
}
