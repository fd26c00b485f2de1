package balancer_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

func TestStatus(t *testing.T) {
	run(t, balancer.Options{}, []string{"a", "b", "c"}, func(t *testing.T, p *balancer.Pool, f *fleet, _ *log) {
		a := p.Get("a")
		start := time.Now()
		want := func(state balancer.State, health balancer.Health, since time.Time, why string) {
			t.Helper()
			s := a.Status()
			if s.State != state || s.Health != health || !strings.HasPrefix(s.Why, why) || !s.Wish.Equal(a.Wish()) {
				t.Errorf("status %+v, want %v, %v, because %q", s, state, health, why)
			}
			if d := s.Since.Sub(since); d < -3*time.Second || d > time.Millisecond {
				t.Errorf("%v since %v, want a moment before %v", s.State, s.Since, since)
			}
			if age := time.Since(s.Checked); age < 0 || age > 2*time.Second || (s.CheckErr == nil) != (health == balancer.Well) {
				t.Errorf("checked %v ago: %v", age, s.CheckErr)
			}
		}
		want(balancer.Up, balancer.Well, start, "added")

		f.set("sick", "a")
		sleep(2 * time.Second)
		sick := time.Now()
		want(balancer.Draining, balancer.Sick, sick, "check: HEAD /health: unexpected status 503")
		sleep(time.Minute)
		want(balancer.Draining, balancer.Sick, sick, "check: HEAD")
		must(t, p.Drain("a", 0)) // the operator's word counts for more than a sick page
		want(balancer.Draining, balancer.Sick, sick, "operator: drain")
		must(t, p.SetWeight("a", 3))
		want(balancer.Draining, balancer.Sick, sick, "operator: drain")

		f.set("hung", "a")
		sleep(2 * time.Second)
		dead := time.Now()
		want(balancer.Down, balancer.Dead, dead, "check: no answer within 500ms")
		if s := a.Status(); s.CheckTook != 500*time.Millisecond {
			t.Errorf("the check took %v, want its timeout", s.CheckTook)
		}
		must(t, p.Off("a"))
		want(balancer.Down, balancer.Dead, dead, "operator: off")
		must(t, p.Undrain("a"))
		want(balancer.Down, balancer.Dead, dead, "check: no answer within 500ms")
		f.set("", "a")
		sleep(3 * time.Second)
		up := time.Now()
		want(balancer.Up, balancer.Well, up, "check: well")
		sleep(time.Minute)
		must(t, p.SetWeight("a", 4))
		want(balancer.Up, balancer.Well, up, "check: well")

		must(t, p.Drain("a", time.Second))
		sleep(time.Second)
		want(balancer.Down, balancer.Well, time.Now(), "end of the drain")
		must(t, p.Undrain("a"))
		want(balancer.Up, balancer.Well, time.Now(), "operator: serve")
	})
}

func TestStatusBeforeChecks(t *testing.T) {
	t.Parallel()
	if s := newBackend(t, "a", 1).Status(); s.State != balancer.Up || s.Since.IsZero() || !s.Checked.IsZero() {
		t.Errorf("without a pool: %+v", s)
	}
	p := newPool(t, &balancer.Options{StartDown: true}, "a")
	if s := p.Get("a").Status(); s.State != balancer.Down || s.Health != balancer.Dead || s.Why != "not checked yet" {
		t.Errorf("down at the start: %+v", s)
	}
	a := p.Get("a")
	must(t, p.Remove("a"))
	if s := a.Status(); s.State != balancer.Down || s.Why != "removed" {
		t.Errorf("removed: %+v", s)
	}
}

// Whatever is read fits together.
func TestStatusIsOfOneMoment(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil, "a")
	a := p.Get("a")
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 2000 {
			p.Off("a")
			p.Undrain("a")
		}
	})
	for range 20_000 {
		if s := a.Status(); s.State != s.Wish.State || s.State == balancer.Down && s.Why != "operator: off" {
			t.Fatalf("%+v", s)
		}
	}
	wg.Wait()
}
