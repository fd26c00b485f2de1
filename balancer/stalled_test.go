package balancer_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// stall reports what makes b stalled.
func stall(p *balancer.Pool, b *balancer.Backend) { p.ReportSlow(b, time.Now().Add(-time.Second)) }

// A backend that is stalled is picked for nobody who may go elsewhere, and for everybody
// else as before.
func TestReportSlowIsPickedLast(t *testing.T) {
	t.Parallel()
	for name, picker := range pickers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, &balancer.Options{Picker: picker}, "a", "b", "c")
			a, b, c := p.Get("a"), p.Get("b"), p.Get("c")
			picks := func(home, key string, tried ...*balancer.Backend) map[string]int {
				got := make(map[string]int)
				for range 200 {
					b, err := p.Pick(nil, home, key, tried...)
					must(t, err)
					got[b.ID()]++
				}
				return got
			}
			placed := picks("", "somebody")
			stall(p, a)
			stall(p, a)
			if got := picks("", ""); got["a"] > 0 || got["b"] == 0 || got["c"] == 0 {
				t.Errorf("a new client goes to %v", got)
			}
			if got := picks("", "", b); got["c"] != 200 {
				t.Errorf("after b it goes to %v", got)
			}
			if got := picks("", "", b, c); got["a"] != 200 {
				t.Errorf("after b and c it goes to %v", got)
			}
			if got := picks("a", "x"); got["a"] != 200 {
				t.Errorf("a client of a goes to %v", got)
			}
			if got := picks("", "somebody"); got["a"] != placed["a"] {
				t.Errorf("a client with a key goes to %v, and went to %v", got, placed)
			}
			if a.State() != balancer.Up || !a.Slow() || b.Slow() {
				t.Errorf("a is %v, slow %v; b slow %v", a.State(), a.Slow(), b.Slow())
			}
			stall(p, b)
			if got := picks("", ""); len(got) != 3 {
				t.Errorf("two of three are slow: a new client goes to %v", got)
			}
			if got := picks("", "", a); len(got) == 0 || got["a"] > 0 {
				t.Errorf("two of three are slow: after a it goes to %v", got)
			}
			stall(p, c)
			if got := picks("", ""); len(got) != 3 {
				t.Errorf("all are slow: a new client goes to %v", got)
			}
		})
	}
}

// A backend is stalled once it has answered nobody for half a second, counted from the first
// request that was reported, and any answer ends that.
func TestStalledIsSilent(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	type step struct {
		after   time.Duration
		answers bool          // else a report
		since   time.Duration // of the report, before now
		stalled bool
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"one long wait", []step{{1000 * ms, false, 600 * ms, true}}},
		{"many short waits at once", []step{{1000 * ms, false, 200 * ms, false}, {0, false, 210 * ms, false}, {10 * ms, false, 200 * ms, false}}},
		{"one short wait after the other", []step{{1000 * ms, false, 200 * ms, false}, {200 * ms, false, 200 * ms, false}, {100 * ms, false, 200 * ms, true}}},
		{"a short wait long after another", []step{{1000 * ms, false, 200 * ms, false}, {time.Hour, false, 200 * ms, false}, {300 * ms, false, 200 * ms, true}}},
		{"an answer within the wait", []step{{1000 * ms, true, 0, false}, {500 * ms, false, 600 * ms, false}, {200 * ms, false, 600 * ms, true}}},
		{"an answer between two waits", []step{{1000 * ms, false, 400 * ms, false}, {1 * ms, true, 0, false}, {300 * ms, false, 200 * ms, false}}},
		{"an answer after it", []step{{1000 * ms, false, 600 * ms, true}, {1 * ms, true, 0, false}, {300 * ms, false, 200 * ms, false}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, byTransport := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					f := &fleet{does: map[string]string{"a": "busy"}, checks: make(map[string][]time.Time)}
					tr := &balancer.Transport{Dial: f.dial}
					p := newPool(t, &balancer.Options{Transport: tr}, "a", "b", "c")
					a := p.Get("a")
					for i, s := range tt.steps {
						time.Sleep(s.after)
						switch {
						case !s.answers:
							p.ReportSlow(a, time.Now().Add(-s.since))
						case byTransport:
							req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), a), "GET", "http://a.test/", nil)
							must(t, err)
							res, err := tr.RoundTrip(req)
							must(t, err)
							res.Body.Close()
						default:
							a.Took(time.Millisecond)
						}
						if a.Slow() != s.stalled {
							t.Errorf("stalled %v after step %d", a.Slow(), i+1)
						}
						if b, err := p.Pick(nil, "", "", p.Get("b")); err != nil || s.stalled && b == a {
							t.Errorf("after step %d a new client goes to %v, %v", i+1, b, err)
						}
					}
					tr.CloseIdleConnections()
					synctest.Wait()
				})
			}
		})
	}
}

// What ends that a backend is picked last.
func TestSlowEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		path        string
		runs, hangs bool
		within      [2]time.Duration
	}{
		{"a good check", "/health", true, false, [2]time.Duration{time.Second, 2100 * time.Millisecond}},
		{"a check that only connects proves nothing", "", true, false, [2]time.Duration{10 * time.Second, 10 * time.Second}},
		{"nobody checks", "/health", false, false, [2]time.Duration{10 * time.Second, 10 * time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &fleet{does: make(map[string]string), checks: make(map[string][]time.Time)}
				p := newPool(t, &balancer.Options{Check: &balancer.Check{Path: tt.path}, Transport: &balancer.Transport{Dial: f.dial}}, "a", "b")
				if tt.runs {
					ctx, cancel := context.WithCancel(t.Context())
					ended := make(chan struct{})
					go func() {
						defer close(ended)
						p.Run(ctx)
					}()
					defer func() {
						cancel()
						<-ended
					}()
				}
				time.Sleep(3300 * time.Millisecond)
				f.checked("a")
				stall(p, p.Get("a"))
				began := time.Now()
				time.Sleep(150 * time.Millisecond)
				if n := len(f.checked("a")); (n > 0) != tt.runs {
					t.Errorf("the report has caused %d checks", n)
				}
				for p.Get("a").Slow() && time.Since(began) < time.Minute {
					time.Sleep(time.Millisecond)
				}
				if took := time.Since(began); took < tt.within[0] || took > tt.within[1]+2*time.Millisecond {
					t.Errorf("it ended after %v, want %v", took, tt.within)
				}
			})
		})
	}
}
