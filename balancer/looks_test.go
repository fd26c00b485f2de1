package balancer_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A backend that was heard all the time and falls silent is checked at once, whatever the
// phase of its checks is.
func TestSilentBackendIsFoundInTime(t *testing.T) {
	for phase := range 20 {
		t.Run(fmt.Sprint(phase), func(t *testing.T) {
			run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
				a := p.Get("a")
				a.BeginTunnel()
				defer a.EndTunnel()
				for range 150 + 3*phase { // 50 ms of an interval more
					a.Heard().Add(1)
					sleep(17 * time.Millisecond)
				}
				f.set("hung", "a")
				lost := a.Lost()
				select {
				case <-lost:
				case <-time.After(1100*time.Millisecond + time.Millisecond): // a look + 2 x timeout
					t.Error("not lost in time")
				}
				synctest.Wait()
				l.want(t, "a up-down lost")
			})
		})
	}
}

// A check in the middle of a silence fails early. No verdict follows from it: the check after it
// waits for the whole timeout, as the only one does with a Fall of 1.
func TestVerdictTakesWholeTimeout(t *testing.T) {
	for _, tt := range []struct {
		name     string
		fall     int
		refused  bool // a request's dial was refused in the silence, so that one check is enough
		timeouts []time.Duration
	}{
		{"Fall 1", 1, false, []time.Duration{500}},
		{"Fall 2", 2, false, []time.Duration{300, 500}},
		{"Fall 2, refused", 2, true, []time.Duration{500}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, balancer.Options{Check: &balancer.Check{Fall: tt.fall}}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
				a := p.Get("a")
				a.BeginTunnel()
				defer a.EndTunnel()
				for range 300 {
					a.Heard().Add(1)
					sleep(10 * time.Millisecond)
				}
				for f.checked("a"); len(f.checked("a")) == 0; { // so that none is due soon
					a.Heard().Add(1)
					sleep(10 * time.Millisecond)
				}
				a.Heard().Add(1)
				f.set("hung", "a")
				if tt.refused {
					sleep(290 * time.Millisecond)
					p.Report(a, syscall.ECONNREFUSED)
				}
				<-a.Lost()
				end := time.Now()
				checks := append(f.checked("a"), end)
				for i, timeout := range tt.timeouts {
					if len(checks) != len(tt.timeouts)+1 {
						t.Fatalf("%d checks, want %d", len(checks)-1, len(tt.timeouts))
					}
					if took := checks[i+1].Sub(checks[i]); took != timeout*time.Millisecond {
						t.Errorf("check %d waited for %v, want %d ms", i+1, took, timeout)
					}
				}
				synctest.Wait()
				l.want(t, "a up-down lost")
			})
		})
	}
}

// Whatever the traffic is, a backend that lives is hardly checked more often for its pauses.
func TestPausesCauseFewChecks(t *testing.T) {
	random := func(mean time.Duration) func(time.Duration) time.Duration {
		return func(time.Duration) time.Duration { return time.Duration(rand.ExpFloat64() * float64(mean)) }
	}
	// turns is traffic for the first part of each period.
	turns := func(traffic, period time.Duration) func(time.Duration) time.Duration {
		return func(at time.Duration) time.Duration {
			if at%period < traffic {
				return 10 * time.Millisecond
			}
			return period - at%period
		}
	}
	for _, tt := range []struct {
		name string
		next func(at time.Duration) time.Duration // until something is heard
		most float64                              // checks, in comparison with a backend without traffic
	}{
		{"no traffic", random(time.Hour), 1.01},
		{"each 2 s", random(2 * time.Second), 1.01},
		{"each 500 ms", random(500 * time.Millisecond), 1.01},
		{"each 200 ms", random(200 * time.Millisecond), 1.02},
		{"each 100 ms", random(100 * time.Millisecond), 1.05},
		{"each 70 ms", random(70 * time.Millisecond), 1.05},
		{"each 40 ms", random(40 * time.Millisecond), 1.05},
		{"each 20 ms", random(20 * time.Millisecond), 1.02},
		{"each 5 ms", random(5 * time.Millisecond), 1.01},
		{"all clients at once", turns(100*time.Millisecond, time.Second), 1.02},
		{"all clients each 1.5 s", turns(150*time.Millisecond, 1500*time.Millisecond), 1.02},
		{"pauses of 0.5 s", turns(3*time.Second, 3500*time.Millisecond), 1.02},
		{"pauses of 0.3 s", turns(6500*time.Millisecond, 6800*time.Millisecond), 1.1},
		{"long pauses", turns(7*time.Second, 14*time.Second), 1.1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
				a := p.Get("a")
				a.BeginTunnel()
				defer a.EndTunnel()
				f.checked("a")
				f.checked("b")
				began := time.Now()
				for at := time.Duration(0); at < 10*time.Minute; at = time.Since(began) {
					time.Sleep(min(tt.next(at), 10*time.Minute-at))
					a.Heard().Add(1)
				}
				checks, others := len(f.checked("a")), len(f.checked("b"))
				t.Logf("%d checks, %d of the other", checks, others)
				if float64(checks) > tt.most*float64(others) {
					t.Errorf("%d checks, and %d of a backend without traffic: want %v times as many at most", checks, others, tt.most)
				}
				l.want(t)
			})
		})
	}
}

// Silence after the last client has left means nothing.
func TestSilenceWithoutClients(t *testing.T) {
	run(t, balancer.Options{}, []string{"a"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		a := p.Get("a")
		for range 10 {
			a.Begin()
			for range 100 {
				a.Heard().Add(1)
				sleep(20 * time.Millisecond)
			}
			for f.checked("a"); len(f.checked("a")) == 0; {
				a.Heard().Add(1)
				sleep(time.Millisecond)
			}
			a.End()
			sleep(850 * time.Millisecond)
			if n := len(f.checked("a")); n > 0 {
				t.Errorf("%d checks within an interval", n)
			}
		}
	})
}
