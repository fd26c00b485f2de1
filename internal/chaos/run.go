//go:build unix

package chaos

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/redistest"
)

// A run is one chaos test.
type run struct {
	seed    uint64
	lasting time.Duration // all of it
	clients int
	redis   *redistest.Server // nil without one
	end     bool              // the gateways in order, to see whether they have found races

	calmUntil time.Duration // when the faults begin
}

// The parts of a run beside the faults.
const (
	calm     = 2 * time.Second         // without faults, at its beginning
	settling = 1500 * time.Millisecond // without faults, at its end, behind the last recovery
	leaving  = 3 * time.Second         // while the last clients leave, and gateways drop their idle connections
)

// do carries out a run and fails the test by what its history breaks.
func (r *run) do(t *testing.T) {
	h := newHistory()
	began := time.Now()
	c := newCluster(t, h, r.redis, []string{"a", "b", "c", "d"}, []string{"e"}, []string{"g1", "g2"})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var beside, clients sync.WaitGroup
	defer beside.Wait()
	defer stop()
	control := &controlGroup{}
	aside := startNode(t, nodeSettings{ID: "control"})
	for range 2 {
		beside.Go(func() { control.watch(ctx, h, aside.addr) })
	}
	for _, g := range c.balancer.gateways {
		g.ready.Store(true)
	}
	beside.Go(func() { c.balancer.run(ctx) })

	living, leave := context.WithCancel(ctx)
	defer leave()
	for i := range r.clients {
		clients.Go(func() { r.client(living, i, h, c) })
	}
	time.Sleep(calm)
	r.calmUntil = h.now()
	s := newSchedule(c, began.Add(r.lasting-settling-leaving))
	s.run(ctx, r.seed)
	faultsEnded := h.now()
	time.Sleep(settling)
	leave()
	clients.Wait()

	t.Logf("the last client has left after %.1f s, the last fault had ended after %.1f s", h.now().Seconds(), faultsEnded.Seconds())
	ops, faults := h.snapshot()
	faults = append(faults, control.faults()...)
	found := check(ops, faults, c.executed(), control, r.calmUntil)
	r.report(t, ops, faults, found.violations)
	for _, what := range slices.Sorted(maps.Keys(found.waits)) {
		t.Logf("longest wait with %s in the way: %.3f s", cmp.Or(what, "nothing"), found.waits[what].Seconds())
	}
	c.checkVitals()
	if r.end {
		c.end()
	}
	t.Logf("seed %d: %d clients, %d ops, %d faults; the slowest request of the control group took %.3f s; %v in all",
		r.seed, r.clients, len(ops), len(faults), control.slowest(r.calmUntil, h.now()).Seconds(), time.Since(began).Round(100*time.Millisecond))
}

// client runs the ith client until ctx ends.
func (r *run) client(ctx context.Context, i int, h *history, c *cluster) {
	kinds := []struct {
		name string
		life func(*client) func(context.Context)
	}{
		{"ws", func(c *client) func(context.Context) { return c.socket }},
		{"poll", func(c *client) func(context.Context) { return c.polling("4") }},
		{"plain", func(c *client) func(context.Context) { return c.plain }},
		{"ws", func(c *client) func(context.Context) { return c.socket }},
		{"visitor", func(c *client) func(context.Context) { return c.visitor }},
		{"poll", func(c *client) func(context.Context) { return c.polling("4") }},
		{"ws", func(c *client) func(context.Context) { return c.socket }},
		{"old", func(c *client) func(context.Context) { return c.polling("3") }},
	}
	if r.redis == nil {
		kinds = kinds[:len(kinds)-1] // the gateways couldn't tell each other of sessions
	}
	k := kinds[i%len(kinds)]
	one := newClient(fmt.Sprintf("%s%d", k.name, i), r.seed, h, c.balancer)
	one.pause(ctx, time.Duration(i)*time.Second/time.Duration(r.clients))
	one.run(ctx, k.life(one))
}

// report fails the test if there are violations, with the first of each invariant and what
// was around it.
func (r *run) report(t *testing.T, ops []op, faults []fault, violations []violation) {
	if len(violations) == 0 {
		return
	}
	first := violations[0]
	t.Logf("first found: %s, %.1f s after the faults began", first.invariant, (first.op.end - r.calmUntil).Seconds())
	count := make(map[string]int)
	var b strings.Builder
	for _, v := range violations {
		if count[v.invariant]++; count[v.invariant] > 3 {
			continue
		}
		fmt.Fprintf(&b, "\n%s, at %.3f s: %s\n%s", strings.ToUpper(v.invariant), v.op.end.Seconds(), v.what, around(ops, faults, v.op.client, v.from, v.op.end))
	}
	t.Errorf("seed %d: %v\n%s\nagain: go test ./internal/chaos -args -chaos.seed=%d -chaos.for=%v", r.seed, count, b.String(), r.seed, r.lasting)
}
