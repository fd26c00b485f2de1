package rebalance_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/limpet-go/limpet/internal/rebalance"
)

func load(id string, clients float64) rebalance.Load {
	return rebalance.Load{ID: id, Weight: 1, Clients: clients, Movable: clients}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	weighted := func(l rebalance.Load, weight int) rebalance.Load {
		l.Weight = weight
		return l
	}
	of := func(group string, l rebalance.Load) rebalance.Load {
		l.Group = group
		return l
	}
	for _, tt := range []struct {
		name  string
		loads []rebalance.Load
		pace  float64
		want  []float64
		left  float64
	}{
		{"nobody", nil, 0.1, nil, 0},
		{"one backend", []rebalance.Load{load("a", 7)}, 0.1, []float64{0}, 0},
		{"in balance", []rebalance.Load{load("a", 50), load("b", 50)}, 0.1, []float64{0, 0}, 0},
		{"within the slack", []rebalance.Load{load("a", 1040), load("b", 960)}, 0.1, []float64{0, 0}, 0},
		{"as chance would have it", []rebalance.Load{load("a", 109), load("b", 91)}, 0.1, []float64{0, 0}, 0},
		{"only some may be moved", []rebalance.Load{{ID: "a", Weight: 1, Clients: 100, Movable: 3}, load("b", 100), load("c", 10)}, 1, []float64{-3, -30, 33}, 33},
		{"nobody may be moved", []rebalance.Load{{ID: "a", Weight: 1, Clients: 100}, load("b", 0)}, 1, []float64{0, 0}, 0},
		{"no whole client", []rebalance.Load{load("a", 1), load("b", 1), load("c", 0)}, 1, []float64{0, 0, 0}, 0},
		{"one client", []rebalance.Load{load("a", 2), load("b", 1), load("c", 0)}, 1, []float64{-1, 0, 1}, 1},
		{"a new one", []rebalance.Load{load("a", 150), load("b", 150), load("c", 0)}, 0.1, []float64{-5, -5, 10}, 100},
		{"in proportion to the excess", []rebalance.Load{load("a", 200), load("b", 160), load("c", 0)}, 0.1, []float64{-8, -4, 12}, 120},
		{"two that lack", []rebalance.Load{load("a", 300), load("b", 0), load("c", 0)}, 0.1, []float64{-20, 10, 10}, 200},
		{"never more than is lacking", []rebalance.Load{load("a", 120), load("b", 80)}, 1, []float64{-20, 20}, 20},
		{"by weight", []rebalance.Load{weighted(load("a", 60), 1), weighted(load("b", 60), 3)}, 0.1, []float64{-9, 9}, 30},
		{"no weights", []rebalance.Load{weighted(load("a", 60), 0), weighted(load("b", 0), 0)}, 0.1, []float64{0, 0}, 0},
		{"groups", []rebalance.Load{of("x", load("a", 100)), of("x", load("b", 100)), of("y", load("c", 0)), of("y", load("d", 20))}, 0.1, []float64{0, 0, 1, -1}, 10},
	} {
		got, left := rebalance.Plan(tt.loads, tt.pace)
		if len(got) != len(tt.want) || math.Abs(left-tt.left) > 1e-6 {
			t.Errorf("%s: %v, %v left, want %v, %v", tt.name, got, left, tt.want, tt.left)
			continue
		}
		for i := range got {
			if math.Abs(got[i]-tt.want[i]) > 1e-6 {
				t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
				break
			}
		}
	}
}

// Replicas that see the same move as many as are too many, no more, and then nobody.
func TestSteps(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		replicas, backends, each, empty int
		pace                            float64
	}{
		{1, 3, 100, 1, 1. / 120}, {2, 3, 100, 1, 1. / 120}, {3, 3, 20, 1, 1. / 120}, {5, 10, 7, 3, 1. / 10},
		{10, 200, 1, 1, 1. / 120}, {2, 100, 50, 50, 1. / 60}, {1, 2, 1, 1, 1}, {4, 3, 1000, 1, 1},
	} {
		name := fmt.Sprintf("%+v", tt)
		at := make([][]float64, tt.replicas) // clients by replica and backend
		total, share := 0., 0.
		for r := range at {
			at[r] = make([]float64, tt.backends)
			for b := tt.empty; b < tt.backends; b++ {
				at[r][b] = float64(tt.each)
				total += at[r][b]
			}
		}
		share = total / float64(tt.backends)
		steps := make([]rebalance.Steps, tt.replicas)
		for r := range steps {
			steps[r] = rebalance.Steps{Place: r, Replicas: tt.replicas}
		}
		var moved int
		var allowed float64
		rounds, left := int(4/tt.pace)+10, 0.
		for round := range rounds {
			sums := make([]float64, tt.backends)
			for _, mine := range at {
				for b, n := range mine {
					sums[b] += n
				}
			}
			allowed += share * tt.pace * float64(tt.empty)
			var all []rebalance.Move
			for r := range at {
				loads := make([]rebalance.Load, tt.backends)
				for b := range loads {
					loads[b] = rebalance.Load{ID: fmt.Sprint(b), Weight: 1, Clients: sums[b], Movable: sums[b], Own: at[r][b]}
				}
				var moves []rebalance.Move
				moves, left = steps[r].Next(loads, tt.pace)
				all = append(all, moves...)
				for _, m := range moves { // the client comes back to the same replica
					var from, to int
					fmt.Sscan(m.From, &from)
					fmt.Sscan(m.To, &to)
					at[r][from]--
					at[r][to]++
					if at[r][from] < 0 {
						t.Fatalf("%s: a client that isn't there moved", name)
					}
				}
			}
			if moved += len(all); float64(moved) > allowed+1e-6 && float64(moved) > share*float64(tt.empty) {
				t.Fatalf("%s: %d have moved after %d steps, want %.1f at most", name, moved, round+1, allowed)
			}
			if left == 0 && len(all) > 0 {
				t.Fatalf("%s: moves in balance", name)
			}
		}
		if left != 0 {
			t.Errorf("%s: %v are left to move", name, left)
		}
		need := share * float64(tt.empty)
		if float64(moved) > 1.1*need+float64(tt.replicas) {
			t.Errorf("%s: %d moved, where %.1f were too many", name, moved, need)
		}
		for b := range tt.empty {
			n := 0.
			for _, mine := range at {
				n += mine[b]
			}
			if n < 0.95*share && n < share-max(1, math.Sqrt(share))-float64(tt.replicas) {
				t.Errorf("%s: backend %d has %v of its share of %.1f", name, b, n, share)
			}
		}
	}
}
