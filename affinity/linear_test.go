package affinity_test

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// A storeCall is a Swap of one key, or a Load if it isn't one, and what came of it.
type storeCall struct {
	swap       bool
	old, new   string
	begin, end time.Duration
	now        string
	cut        bool // a Swap that failed: it may have happened, at any later moment, or not
}

// String describes the call for those who read a history.
func (c storeCall) String() string {
	if c.swap {
		return fmt.Sprintf("Swap(%q, %q) = %q, cut: %t", c.old, c.new, c.now, c.cut)
	}
	return fmt.Sprintf("Load = %q", c.now)
}

// after returns the key's value after the call if it was state before.
func (c storeCall) after(state string) string {
	if c.swap && state == c.old {
		return c.new
	}
	return state
}

// linearizable tells whether there is an order of calls, each at some moment
// between its begin and its end, that gives each call the result that it had, as
// Wing and Gong search for it ("Testing and Verifying Concurrent Objects",
// 1993), with Lowe's memory of where the search has been. There may be up to
// 128 calls.
func linearizable(calls []storeCall) bool {
	type point struct {
		happened [2]uint64 // a bit for each call
		state    string
	}
	seen := make(map[point]bool)
	var search func(point) bool
	search = func(p point) bool {
		if seen[p] {
			return false
		}
		seen[p] = true
		done, first := true, time.Duration(math.MaxInt64)
		for i, c := range calls { // what must happen before anything that begins later
			if p.happened[i/64]&(1<<(i%64)) == 0 && !c.cut {
				done, first = false, min(first, c.end)
			}
		}
		if done {
			return true // what was cut and isn't in the order never happened
		}
		for i, c := range calls {
			if p.happened[i/64]&(1<<(i%64)) != 0 || c.begin > first {
				continue
			}
			next := point{p.happened, c.after(p.state)}
			next.happened[i/64] |= 1 << (i % 64)
			if (c.cut || c.now == next.state) && search(next) {
				return true
			}
		}
		return false
	}
	return search(point{})
}

// The check itself tells good histories from bad ones.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	load := func(begin, end time.Duration, now string) storeCall {
		return storeCall{begin: begin, end: end, now: now}
	}
	swap := func(begin, end time.Duration, old, new, now string) storeCall {
		return storeCall{swap: true, old: old, new: new, begin: begin, end: end, now: now}
	}
	cut := func(begin time.Duration, old, new string) storeCall {
		return storeCall{swap: true, old: old, new: new, begin: begin, cut: true}
	}
	for _, tt := range []struct {
		name  string
		calls []storeCall
		want  bool
	}{
		{"nothing", nil, true},
		{"in turn", []storeCall{swap(0, 1, "", "a", "a"), load(2, 3, "a"), swap(4, 5, "a", "", ""), load(6, 7, "")}, true},
		{"a lost swap", []storeCall{swap(0, 1, "", "a", "a"), load(2, 3, "")}, false},
		{"a value from nowhere", []storeCall{load(0, 1, "a")}, false},
		{"at the same time, either way", []storeCall{swap(0, 3, "", "a", "a"), load(1, 2, "")}, true},
		{"at the same time, both win", []storeCall{swap(0, 3, "", "a", "a"), swap(1, 2, "", "b", "b")}, false},
		{"at the same time, one wins", []storeCall{swap(0, 3, "", "a", "b"), swap(1, 2, "", "b", "b")}, true},
		{"two readers, two orders", []storeCall{
			swap(0, 9, "", "a", "a"), swap(0, 9, "a", "b", "b"), load(1, 2, "b"), load(3, 4, "a"),
		}, false},
		{"back to an older value", []storeCall{
			swap(0, 1, "", "a", "a"), swap(2, 3, "a", "b", "b"), swap(4, 9, "b", "a", "a"), load(5, 6, "b"), load(7, 8, "a"),
		}, true},
		{"cut, never happened", []storeCall{cut(0, "", "a"), load(1, 2, ""), load(8, 9, "")}, true},
		{"cut, happened late", []storeCall{cut(0, "", "a"), load(1, 2, ""), load(8, 9, "a")}, true},
		{"cut, happened and vanished", []storeCall{cut(0, "", "a"), load(1, 2, "a"), load(8, 9, "")}, false},
		{"cut, not before it began", []storeCall{load(0, 1, "a"), cut(2, "", "a")}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := linearizable(tt.calls); got != tt.want {
				t.Errorf("%t, want %t", got, tt.want)
			}
		})
	}
}
