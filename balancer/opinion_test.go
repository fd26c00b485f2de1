package balancer_test

import (
	"context"
	"testing"

	"github.com/limpet-go/limpet/balancer"
)

// A pool begins with what another process has found, and knows better once Run was called.
func TestSetOpinion(t *testing.T) {
	t.Parallel()
	pool := balancer.Static("a=http://127.0.0.1:1", "b=http://127.0.0.1:2", "c=http://127.0.0.1:3")
	for id, o := range map[string]balancer.Opinion{"a": {Health: balancer.Dead, Why: "check: refused"}, "b": {Health: balancer.Sick, Why: "check: 503"}, "c": {}} {
		if err := pool.SetOpinion(id, o); err != nil {
			t.Fatal(err)
		}
		if got := pool.Get(id).Opinion(); got != o {
			t.Errorf("the opinion about %s is %+v, want %+v", id, got, o)
		}
	}
	for id, want := range map[string]balancer.State{"a": balancer.Down, "b": balancer.Draining, "c": balancer.Up} {
		if got := pool.Get(id).State(); got != want {
			t.Errorf("%s is %v, want %v", id, got, want)
		}
	}
	if pool.SetOpinion("d", balancer.Opinion{}) == nil || pool.SetOpinion("a", balancer.Opinion{Health: 7}) == nil {
		t.Error("a wrong opinion is no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pool.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if pool.SetOpinion("c", balancer.Opinion{}) == nil {
		t.Error("a pool that has checked takes the opinion of another one")
	}
}
