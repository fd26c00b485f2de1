package balancer_test

import (
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/limpet-go/limpet/balancer"
)

func TestPickersHonourWeights(t *testing.T) {
	t.Parallel()
	for name, picker := range pickers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A weight far above the others is what simple two choices get wrong.
			from := []*balancer.Backend{
				newBackend(t, "a", 1), newBackend(t, "b", 2), newBackend(t, "c", 3), newBackend(t, "d", 14),
			}
			const picks = 20_000
			for range picks {
				picker.Pick(nil, from).Begin()
			}
			for _, b := range from {
				share := float64(b.Weight()) / 20
				// Six standard deviations of the one that is pure chance.
				slack := 6 * math.Sqrt(picks*share*(1-share))
				if n := float64(b.InFlight()); math.Abs(n-picks*share) > slack {
					t.Errorf("%s has %v clients of %d, want %v, give or take %.0f", b.ID(), n, picks, picks*share, slack)
				}
			}
		})
	}
}

func TestRoundRobinIsSmooth(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		weights map[string]int
		want    string
	}{
		{"equal", map[string]int{"a": 5, "b": 5, "c": 5}, "abcabc"},
		{"one heavy", map[string]int{"a": 3, "b": 1, "c": 0}, "aabca aabca"},
		{"alone", map[string]int{"a": 1_000_000, "b": 0, "c": 0}, "aaaa"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var from []*balancer.Backend
			for _, id := range []string{"a", "b", "c"} {
				from = append(from, newBackend(t, id, tt.weights[id]))
			}
			var got strings.Builder
			picker := &balancer.RoundRobin{}
			want := strings.ReplaceAll(tt.want, " ", "")
			for range len(want) {
				got.WriteString(picker.Pick(nil, from).ID())
			}
			if got.String() != want {
				t.Errorf("picked %s, want %s", &got, want)
			}
		})
	}
}

func TestRoundRobinIsExactUnderConcurrency(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil, "a", "b", "c")
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 1000 {
				b, _ := p.Pick(nil, "", "")
				b.Begin()
			}
		})
	}
	wg.Wait()
	for b := range p.All() {
		if b.InFlight() != 1000 {
			t.Errorf("%s was picked %d times, want 1000", b.ID(), b.InFlight())
		}
	}
}

func TestTwoChoicesAreDifferent(t *testing.T) {
	t.Parallel()
	picker := &balancer.TwoChoices{}
	a, b := newBackend(t, "a", 3), newBackend(t, "b", 2)
	for _, from := range [][]*balancer.Backend{{a, b}, {b, a}} {
		from[0].Begin()
		for range 100 {
			if picker.Pick(nil, from) != from[1] {
				t.Fatalf("picked %s of two, though the other is idle", from[0].ID())
			}
		}
		from[0].End()
	}
	if picker.Pick(nil, []*balancer.Backend{a}) != a {
		t.Error("the only one was not picked")
	}
}

func TestLeastConn(t *testing.T) {
	t.Parallel()
	picker := &balancer.LeastConn{}
	a, b, c := newBackend(t, "a", 1), newBackend(t, "b", 1), newBackend(t, "c", 4)
	from := []*balancer.Backend{a, b, c}
	for range 4 {
		c.Begin()
	}
	a.Begin()
	if got := picker.Pick(nil, from); got != b {
		t.Errorf("picked %s, want b, which is idle", got.ID())
	}
	b.Begin()
	if got := picker.Pick(nil, from); got != c {
		t.Errorf("picked %s, want c: 5 of weight 4 are less than 2 of weight 1", got.ID())
	}
	a.End()
	tied := map[*balancer.Backend]bool{}
	for range 200 { // the chance to miss one of two is 1 in 2^199
		tied[picker.Pick(nil, []*balancer.Backend{a, newBackend(t, "d", 1)})] = true
	}
	if !tied[a] || len(tied) < 2 {
		t.Error("ties always go to the same backend")
	}
}
