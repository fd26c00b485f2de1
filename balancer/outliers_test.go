package balancer_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

var five = []string{"a", "b", "c", "d", "e"}

// observe tells p of the same result n times.
func observe(p *balancer.Pool, id string, n int, r balancer.Result) {
	for range n {
		p.Observe(p.Get(id), r)
	}
}

var reset = balancer.Result{Err: syscall.ECONNRESET}

func TestOutlierIsEjected(t *testing.T) {
	good := balancer.Result{Status: 200, Begin: time.Millisecond}
	for _, tt := range []struct {
		name    string
		with    balancer.Outliers
		observe func(p *balancer.Pool)
		ejected string // a part of the reason, "" if it isn't
	}{
		{"four resets in a row", balancer.Outliers{}, func(p *balancer.Pool) {
			observe(p, "a", 4, reset)
			observe(p, "a", 1, good)
			observe(p, "a", 4, reset)
		}, ""},
		{"five resets in a row", balancer.Outliers{}, func(p *balancer.Pool) { observe(p, "a", 5, reset) }, "5 failures in a row, at last connection reset"},
		{"status 500", balancer.Outliers{}, func(p *balancer.Pool) { observe(p, "a", 100, balancer.Result{Status: 500}) }, ""},
		{"a chosen status", balancer.Outliers{Statuses: []int{502, 503}}, func(p *balancer.Pool) { observe(p, "a", 5, balancer.Result{Status: 503}) }, "status 503"},
		{"slow", balancer.Outliers{Slow: time.Second, Consecutive: 2}, func(p *balancer.Pool) {
			observe(p, "a", 2, balancer.Result{Status: 200, Begin: 1500 * time.Millisecond})
		}, "an answer that began after 1.5s"},
		{"a poll", balancer.Outliers{Slow: time.Second}, func(p *balancer.Pool) { observe(p, "a", 10, balancer.Result{Status: 200}) }, ""},
		{"half of them", balancer.Outliers{}, func(p *balancer.Pool) {
			for range 10 {
				observe(p, "a", 1, good)
				observe(p, "a", 1, reset)
			}
		}, "10 of 20 requests failed"},
		{"half of too few", balancer.Outliers{}, func(p *balancer.Pool) {
			for range 9 {
				observe(p, "a", 1, good)
				observe(p, "a", 1, reset)
			}
		}, ""},
		{"half of them, over two windows", balancer.Outliers{}, func(p *balancer.Pool) {
			for range 10 {
				observe(p, "a", 1, good)
				observe(p, "a", 1, reset)
				time.Sleep(time.Second + time.Millisecond)
			}
		}, ""},
		{"fewer than half", balancer.Outliers{}, func(p *balancer.Pool) {
			for range 100 {
				observe(p, "a", 2, good)
				observe(p, "a", 1, reset)
			}
		}, ""},
		{"own exhaustion", balancer.Outliers{}, func(p *balancer.Pool) {
			observe(p, "a", 100, balancer.Result{Err: os.NewSyscallError("socket", syscall.EMFILE)})
		}, ""},
		{"lost", balancer.Outliers{}, func(p *balancer.Pool) {
			observe(p, "a", 100, balancer.Result{Err: fmt.Errorf("request: %w", balancer.ErrLost)})
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, balancer.Options{Outliers: &tt.with}, five, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
				a := p.Get("a")
				tt.observe(p)
				s := a.Status()
				if (s.Health == balancer.Sick) != (tt.ejected != "") || !strings.Contains(s.Why, tt.ejected) {
					t.Fatalf("health %v, because %q, want %q", s.Health, s.Why, tt.ejected)
				}
				if tt.ejected == "" {
					return
				}
				l.want(t, "a up-draining")
				if !a.Keeps("key") || closed(a.Lost()) {
					t.Error("it has lost its clients")
				}
				for range 20 {
					if b, err := p.Pick(nil, "", ""); err != nil || b == a {
						t.Errorf("a new client goes to %v, %v", b, err)
					}
				}
				sleep(29 * time.Second) // good checks don't end it
				l.want(t)
				sleep(time.Second)
				l.want(t, "a draining-up")
			})
		})
	}
}

func TestNobodyIsEjectedByDefault(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil, five...)
	observe(p, "a", 1000, reset)
	if p.Observes() || p.Get("a").State() != balancer.Up {
		t.Error("it was ejected")
	}
}

func TestEjectionsGrow(t *testing.T) {
	run(t, balancer.Options{Outliers: &balancer.Outliers{Max: 80 * time.Second}}, five, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		a := p.Get("a")
		eject := func(want time.Duration) {
			t.Helper()
			observe(p, "a", 5, reset)
			observe(p, "a", 50, reset) // of its own clients
			start := time.Now()
			for a.State() != balancer.Up {
				sleep(100 * time.Millisecond)
			}
			if d := time.Since(start).Round(time.Second); d != want {
				t.Errorf("ejected for %v, want %v", d, want)
			}
			l.want(t, "a up-draining", "a draining-up")
		}
		eject(30 * time.Second)
		eject(60 * time.Second)
		eject(80 * time.Second)
		sleep(65 * time.Second) // two times Base: 4 times become 2
		eject(60 * time.Second)
		sleep(time.Hour)
		eject(30 * time.Second)
	})
}

func TestLimitsOfEjections(t *testing.T) {
	run(t, balancer.Options{Outliers: &balancer.Outliers{Share: 0.4}}, five, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		observe(p, "a", 5, reset)
		observe(p, "b", 5, reset)
		observe(p, "c", 5, reset) // beyond the share
		l.want(t, "a up-draining", "b up-draining")

		// Others fail: too few are left, and the ejected take new clients again.
		f.set("hung", "c")
		sleep(3 * time.Second)
		l.want(t, "c up-down lost", "a draining-up", "b draining-up")
		if s := p.Get("a").Status(); s.Health != balancer.Well {
			t.Errorf("health %v", s.Health)
		}
		f.set("sick", "d")
		sleep(3 * time.Second)
		l.want(t, "d up-draining")
		observe(p, "a", 5, reset) // two of five would be left
		l.want(t)
	})
}

// A backend that its source drains doesn't count among those that may serve: one of the two
// that are left is an outlier as in a pool of two.
func TestEjectionBesideASourcesDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, _, changes := followedPool(t, balancer.Options{Outliers: &balancer.Outliers{}})
		f := follow(t, p)
		var targets []balancer.Target
		for _, id := range []string{"a", "b", "c", "d"} {
			targets = append(targets, balancer.Target{ID: id, URL: "http://" + id + ".test", Draining: id > "b"})
		}
		f.send(answer{targets: targets})
		changes()
		observe(p, "a", 5, reset)
		if got := p.Get("a").State(); got != balancer.Draining {
			t.Errorf("a is %v, want it ejected", got)
		}
	})
}

func TestTheOnlyBackendIsNeverEjected(t *testing.T) {
	run(t, balancer.Options{Outliers: &balancer.Outliers{}}, []string{"a"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		observe(p, "a", 100, reset)
		l.want(t)
	})
}

// Checks and requests agree through one state.
func TestEjectionBesideChecks(t *testing.T) {
	run(t, balancer.Options{Outliers: &balancer.Outliers{}}, five, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		a := p.Get("a")
		observe(p, "a", 5, reset)
		l.want(t, "a up-draining")
		f.set("sick", "a") // it stays as it is, for another reason
		sleep(3 * time.Second)
		l.want(t)
		if s := a.Status(); !strings.Contains(s.Why, "503") {
			t.Errorf("why %q", s.Why)
		}
		sleep(time.Minute)
		l.want(t)
		f.set("", "a")
		sleep(3 * time.Second)
		l.want(t, "a draining-up")

		// One that is found dead and comes back is judged anew.
		observe(p, "a", 5, reset)
		f.set("hung", "a")
		sleep(3 * time.Second)
		l.want(t, "a up-draining", "a draining-down lost")
		f.set("", "a")
		sleep(3 * time.Second)
		l.want(t, "a down-up")

		// The operator's word counts for more, and a backend that is removed leaves no timer.
		observe(p, "a", 5, reset)
		must(t, p.Off("a"))
		must(t, p.Undrain("a"))
		l.want(t, "a up-draining", "a draining-down lost", "a down-draining")
		must(t, p.Remove("a"))
		*l = nil
		sleep(time.Hour)
		l.want(t)
	})
}

func TestOutliersThatMakeNoSense(t *testing.T) {
	t.Parallel()
	for _, o := range []balancer.Outliers{
		{Consecutive: -1}, {Volume: -1}, {Volume: 1 << 20}, {Rate: 1.5}, {Rate: math.NaN()}, {Share: -1}, {Panic: 2}, {Window: 10}, {Base: 30},
		{Max: time.Second}, {Slow: 5}, {Slow: -time.Second}, {Statuses: []int{100}}, {Statuses: []int{5}},
	} {
		if _, err := balancer.NewPool(&balancer.Options{Outliers: &o}); err == nil || !strings.Contains(err.Error(), "outliers: ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestObserveIsCheap(t *testing.T) {
	p := newPool(t, &balancer.Options{Outliers: &balancer.Outliers{Statuses: []int{502, 503}, Slow: time.Second}}, five...)
	a, r := p.Get("a"), balancer.Result{Status: 200, Begin: time.Millisecond}
	if n := testing.AllocsPerRun(100, func() { p.Observe(a, r) }); n > 0 {
		t.Errorf("%v allocations for a success", n)
	}
}

// Many requests at once are counted right, and eject once.
func TestObserveConcurrently(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, &balancer.Options{Outliers: &balancer.Outliers{}}, five...)
		l := &log{}
		p.OnChange(l.note)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 100 {
					p.Observe(p.Get("a"), balancer.Result{Err: errors.New("broken")})
					p.Observe(p.Get("b"), balancer.Result{Status: 200})
				}
			})
		}
		wg.Wait()
		l.want(t, "a up-draining")
		sleep(31 * time.Second)
		l.want(t, "a draining-up")
	})
}

func BenchmarkObserve(b *testing.B) {
	p := newPool(b, &balancer.Options{Outliers: &balancer.Outliers{Statuses: []int{502, 503}, Slow: time.Second}}, five...)
	a, r := p.Get("a"), balancer.Result{Status: 200, Begin: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		p.Observe(a, r)
	}
}
