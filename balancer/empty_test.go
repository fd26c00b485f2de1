package balancer_test

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// An empties is what OnChange told of backends that may be stopped.
type empties struct {
	mu   sync.Mutex
	told []string
}

func (e *empties) note(c balancer.Change) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.Empty {
		e.told = append(e.told, c.Backend.ID()+" "+c.Why)
	}
}

func (e *empties) want(t *testing.T, lines ...string) {
	t.Helper()
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Equal(e.told, lines) {
		t.Errorf("empty: %q, want %q", e.told, lines)
	}
	e.told = nil
}

func TestEmpty(t *testing.T) {
	t.Parallel()
	const ended = "the last in flight has ended"
	for _, tt := range []struct {
		name string
		test func(t *testing.T, p *balancer.Pool, a *balancer.Backend, told *empties)
	}{
		{"off", func(t *testing.T, p *balancer.Pool, a *balancer.Backend, told *empties) {
			a.Begin()
			a.Begin()
			must(t, p.Off("a"))
			a.End()
			told.want(t)
			a.End()
			told.want(t, "a "+ended)
			a.Begin() // a request that was picked for it a moment before
			a.End()
			told.want(t)
			must(t, p.SetWeight("a", 3)) // the same off
			told.want(t)
			time.Sleep(time.Second)
			must(t, p.Off("a"))
			told.want(t, "a operator: off")
		}},
		{"off, and empty already", func(t *testing.T, p *balancer.Pool, a *balancer.Backend, told *empties) {
			must(t, p.Off("a"))
			told.want(t, "a operator: off")
			must(t, p.Off("b"))
			told.want(t, "b operator: off")
		}},
		{"drain", func(t *testing.T, p *balancer.Pool, a *balancer.Backend, told *empties) {
			a.Begin()
			must(t, p.Drain("a", time.Minute))
			a.End() // its client may come back until its turn
			a.Begin()
			time.Sleep(61 * time.Second)
			told.want(t)
			a.End()
			told.want(t, "a "+ended)
		}},
		{"drain, and empty at the deadline", func(t *testing.T, p *balancer.Pool, a *balancer.Backend, told *empties) {
			must(t, p.Drain("a", time.Minute))
			told.want(t)
			time.Sleep(time.Minute)
			told.want(t, "a end of the drain")
		}},
		{"drain whose deadline has passed elsewhere", func(t *testing.T, p *balancer.Pool, a *balancer.Backend, told *empties) {
			must(t, p.SetWish("a", balancer.Wish{State: balancer.Draining, Since: time.Now().Add(-time.Hour), Within: time.Minute}))
			told.want(t, "a operator: drain")
		}},
		{"drain without a deadline", func(t *testing.T, p *balancer.Pool, a *balancer.Backend, told *empties) {
			must(t, p.Drain("a", 0))
			told.want(t, "a operator: drain")
			for range 2 {
				a.Begin()
				a.End()
				told.want(t, "a "+ended)
			}
		}},
		{"a drain taken back", func(t *testing.T, p *balancer.Pool, a *balancer.Backend, told *empties) {
			a.Begin()
			must(t, p.Drain("a", time.Minute))
			must(t, p.Undrain("a"))
			a.End()
			time.Sleep(time.Hour)
			told.want(t)
		}},
		{"no wish", func(t *testing.T, p *balancer.Pool, a *balancer.Backend, told *empties) {
			a.Begin()
			must(t, p.SetWeight("a", 3))
			a.End()
			told.want(t)
		}},
		{"removed", func(t *testing.T, p *balancer.Pool, a *balancer.Backend, told *empties) {
			a.Begin()
			must(t, p.Off("a"))
			must(t, p.Remove("a"))
			a.End()
			told.want(t, "a "+ended)
		}},
		{"the last ends while the wish is made", func(t *testing.T, p *balancer.Pool, a *balancer.Backend, told *empties) {
			for range 1000 {
				a.Begin()
				go a.End()
				must(t, p.Off("a"))
				synctest.Wait()
				told.mu.Lock()
				if len(told.told) != 1 {
					t.Fatalf("told %q, want one", told.told)
				}
				told.told = nil
				told.mu.Unlock()
				must(t, p.Undrain("a"))
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPool(t, nil, "a", "b")
				told := &empties{}
				p.OnChange(told.note)
				tt.test(t, p, p.Get("a"), told)
			})
		})
	}
}

// A backend that is drained without a deadline becomes empty each time when a client that
// polls has got its answer. The log needs to know of the first time only.
func TestEmptyIsLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		p := newPool(t, &balancer.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, "a", "b")
		a, told := p.Get("a"), 0
		p.OnChange(func(c balancer.Change) {
			if c.Empty {
				told++
			}
		})
		for round := range 2 {
			log.Reset()
			a.Begin()
			must(t, p.Drain("a", 0))
			told = 0
			for range 10 {
				a.End()
				synctest.Wait()
				a.Begin()
			}
			a.End()
			synctest.Wait()
			if n := strings.Count(log.String(), "empty=true"); told != 11 || n != 1 {
				t.Errorf("round %d: told %d times, want 11, and logged %d times, want once:\n%s", round, told, n, log.String())
			}
			must(t, p.Undrain("a"))
		}
	})
}

func TestChangeHasItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, nil, "a")
		var got time.Time
		p.OnChange(func(c balancer.Change) { got = c.Time })
		for range 3 {
			time.Sleep(time.Second)
			must(t, p.SetWeight("a", int(time.Now().Unix()%1000)+1))
			if !got.Equal(time.Now()) {
				t.Errorf("changed at %v, want %v", got, time.Now())
			}
		}
	})
}
