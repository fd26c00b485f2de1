package balancer_test

import (
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A backend that comes back gets a growing share of the new clients, whichever picker deals
// them out, and nothing else changes.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	for name, picker := range pickers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPool(t, &balancer.Options{Picker: picker, SlowStart: 20 * time.Second}, "a", "b", "c")
				time.Sleep(time.Minute) // those that have joined are warm
				share := func(id string) float64 {
					const picks = 3000
					n := 0
					for range picks {
						b := pick(t, p, "", "")
						b.Begin()
						defer b.End()
						if b.ID() == id {
							n++
						}
					}
					return float64(n) / picks
				}
				want := func(id string, want float64) {
					t.Helper()
					if got := share(id); math.Abs(got-want) > 0.05 {
						t.Errorf("%s has %.3f of the new clients, want %.3f", id, got, want)
					}
				}
				keys := func() string {
					var at strings.Builder
					for i := range 100 {
						at.WriteString(pick(t, p, "", fmt.Sprint(i)).ID())
					}
					return at.String()
				}
				before := keys()
				want("b", 1./3)
				must(t, p.Drain("b", time.Hour)) // it stays warm
				must(t, p.Undrain("b"))
				want("b", 1./3)

				must(t, p.Off("b"))
				must(t, p.Undrain("b"))
				want("b", 1./21)
				if keys() != before {
					t.Error("keys are elsewhere during a slow start")
				}
				if b := pick(t, p, "b", ""); b.ID() != "b" {
					t.Error("a pinned client goes elsewhere during a slow start")
				}
				time.Sleep(9 * time.Second)
				want("b", 5./25)
				must(t, p.Off("b")) // down again: it begins anew
				must(t, p.Undrain("b"))
				want("b", 1./21)
				time.Sleep(5 * time.Second)
				want("b", 3./23)
				time.Sleep(14 * time.Second)
				want("b", 1./3)

				must(t, p.Add(newBackend(t, "d", 1)))
				want("d", 1./31)
				time.Sleep(19 * time.Second)
				want("d", 1./4)
				must(t, p.Remove("d")) // while it starts or not, nothing is left of it
				must(t, p.Add(newBackend(t, "d", 1)))
				must(t, p.Remove("d"))
				want("a", 1./3)
			})
		})
	}
}

// A snapshots is a picker that counts the slices that it gets: the pool's snapshots.
type snapshots struct {
	at **balancer.Backend
	n  int
}

func (s *snapshots) Pick(_ *http.Request, from []*balancer.Backend) *balancer.Backend {
	if s.at != &from[0] {
		s.at = &from[0]
		s.n++
	}
	return from[0]
}

// The pool publishes a snapshot for each step, and none while nothing starts.
func TestSlowStartEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := &snapshots{}
		p, err := balancer.ParsePool(&balancer.Options{Picker: seen, SlowStart: 10 * time.Second, Logger: slog.New(slog.DiscardHandler)}, "a=http://a.test", "b=http://b.test")
		must(t, err)
		count := func(d time.Duration) int {
			seen.n = 0
			for range d / (100 * time.Millisecond) {
				time.Sleep(100 * time.Millisecond)
				synctest.Wait()
				pick(t, p, "", "")
			}
			return seen.n
		}
		if n := count(time.Minute); n != 1 {
			t.Errorf("%d snapshots before anything starts, want 1", n)
		}
		must(t, p.Off("b"))
		must(t, p.Undrain("b"))
		if n := count(time.Minute); n != 10 {
			t.Errorf("%d snapshots for a slow start, want 10", n)
		}
		if n := count(time.Minute); n != 0 {
			t.Errorf("%d snapshots after a slow start, want none", n)
		}
	})
	for _, d := range []time.Duration{-1, 30} {
		if _, err := balancer.NewPool(&balancer.Options{SlowStart: d}); err == nil {
			t.Errorf("SlowStart %v is accepted", d)
		}
	}
}
