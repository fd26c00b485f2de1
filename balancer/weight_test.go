package balancer_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

func TestSetWeight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := balancer.Static("a=http://a.test,weight=2", "b=http://b.test")
		var told []string
		p.OnChange(func(c balancer.Change) {
			told = append(told, fmt.Sprintf("%s %v-%v %s", c.Backend.ID(), c.From, c.To, c.Why))
		})
		a := p.Get("a")
		lost := a.Lost()
		a.Begin()
		want := func(weight int, state balancer.State) {
			t.Helper()
			if a.Weight() != weight || a.ConfiguredWeight() != 2 || a.State() != state {
				t.Errorf("weight %d of configured %d, %v; want %d of 2, %v", a.Weight(), a.ConfiguredWeight(), a.State(), weight, state)
			}
		}
		want(2, balancer.Up)
		must(t, p.SetWeight("a", 3))
		want(3, balancer.Up)
		if closed(lost) || a.InFlight() != 1 || !a.Keeps("key") {
			t.Error("a new weight has touched what is in flight or pinned")
		}

		must(t, p.Drain("a", time.Minute))
		want(3, balancer.Draining)
		drain := a.Wish()
		time.Sleep(20 * time.Second)
		must(t, p.SetWeight("a", 7)) // the drain goes on as it was
		if w := a.Wish(); !w.Since.Equal(drain.Since) || w.Within != time.Minute || w.Equal(drain) {
			t.Errorf("wish %+v, want that of before with another weight, %+v", w, drain)
		}
		time.Sleep(41 * time.Second)
		want(7, balancer.Down)
		must(t, p.SetWeight("a", 8))
		want(8, balancer.Down)
		must(t, p.Off("a"))
		want(8, balancer.Down)
		must(t, p.Undrain("a"))
		want(8, balancer.Up)
		must(t, p.SetWeight("a", 0))
		want(2, balancer.Up)
		must(t, p.SetWish("a", balancer.Wish{State: balancer.Draining, Weight: 4}))
		want(4, balancer.Draining)
		must(t, p.SetWish("a", balancer.Wish{}))
		want(2, balancer.Up)

		for what, err := range map[string]error{
			"unknown backend": p.SetWeight("x", 1), "negative": p.SetWeight("a", -1), "huge": p.SetWeight("a", balancer.MaxWeight+1),
			"in a wish": p.SetWish("a", balancer.Wish{State: balancer.Down, Weight: -1}),
		} {
			if err == nil {
				t.Errorf("%s: no error", what)
			}
		}
		want(2, balancer.Up)
		if got, want := told, []string{
			"a up-up operator: weight 3",
			"a up-draining operator: drain",
			"a draining-draining operator: weight 7",
			"a draining-down end of the drain",
			"a down-down operator: weight 8",
			"a down-down operator: off",
			"a down-up operator: serve",
			"a up-up operator: weight 2 as configured",
			"a up-draining operator: drain, weight 4",
			"a draining-up operator: serve, weight 2 as configured",
		}; !slices.Equal(got, want) {
			t.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// Pickers keep what they have computed for a slice of backends, so that the pool must give
// them another one.
func TestPickersHonourNewWeights(t *testing.T) {
	t.Parallel()
	for name, picker := range pickers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, &balancer.Options{Picker: picker}, "a", "b", "c")
			share := func() int {
				n := 0
				var begun []*balancer.Backend
				for range 1000 {
					b, err := p.Pick(nil, "", "")
					must(t, err)
					b.Begin()
					if begun = append(begun, b); b.ID() == "c" {
						n++
					}
				}
				for _, b := range begun {
					b.End()
				}
				return n
			}
			if n := share(); n > 500 {
				t.Fatalf("%d of 1000 on one of three equal backends", n)
			}
			must(t, p.SetWeight("c", 98))
			if n := share(); n < 900 {
				t.Errorf("%d of 1000 on a backend with a share of 98%%", n)
			}
			must(t, p.SetWeight("c", 0))
			if n := share(); n > 500 {
				t.Errorf("%d of 1000 on one of three equal backends, again", n)
			}
		})
	}
}

// The keys that move when a weight grows are those that the backend gains.
func TestRendezvousFollowsTheWeight(t *testing.T) {
	t.Parallel()
	p, q := newPool(t, nil, "a", "b", "c"), balancer.Static("c=http://c.test,weight=2", "b=http://b.test", "a=http://a.test")
	place := func(p *balancer.Pool, key int) string {
		b, err := p.Pick(nil, "", fmt.Sprint("key-", key))
		must(t, err)
		return b.ID()
	}
	const keys = 10_000
	before := make([]string, keys)
	for i := range before {
		before[i] = place(p, i)
	}
	must(t, p.SetWeight("c", 2))
	moved := 0
	for i, home := range before {
		now := place(p, i)
		if now != place(q, i) {
			t.Fatalf("key %d is on %s, and elsewhere on %s, where the weight is configured", i, now, place(q, i))
		}
		if now != home {
			moved++
			if now != "c" {
				t.Fatalf("key %d moved from %s to %s", i, home, now)
			}
		}
	}
	if share := float64(moved) / keys; share < 0.14 || share > 0.19 { // 1/2 less 1/3
		t.Errorf("%.3f of the keys moved", share)
	}
	if b, err := p.Pick(nil, "a", "key-1"); err != nil || b.ID() != "a" {
		t.Errorf("a pinned client went to %v, %v", b, err)
	}
}

func TestWeightsChangeUnderPicks(t *testing.T) {
	t.Parallel()
	for name, picker := range pickers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, &balancer.Options{Picker: picker}, "a", "b", "c")
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for range 5000 {
						if _, err := p.Pick((*http.Request)(nil), "", ""); err != nil {
							t.Error(err)
							return
						}
						p.Pick(nil, "", "key")
					}
				})
			}
			for i := range 1000 {
				must(t, p.SetWeight("b", 1+i*i%balancer.MaxWeight))
				must(t, p.SetWeight("c", 1+i%3))
			}
			wg.Wait()
		})
	}
}
