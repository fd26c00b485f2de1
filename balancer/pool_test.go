package balancer_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

func TestNewPoolRefuses(t *testing.T) {
	t.Parallel()
	taken := newBackend(t, "taken", 1)
	if _, err := balancer.NewPool(nil, taken); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		opts     *balancer.Options
		backends []*balancer.Backend
	}{
		{"same ID twice", nil, []*balancer.Backend{newBackend(t, "a", 1), newBackend(t, "a", 2)}},
		{"backend of another pool", nil, []*balancer.Backend{taken}},
		{"nil backend", nil, []*balancer.Backend{nil}},
		{"check of a relative path", &balancer.Options{Check: &balancer.Check{Path: "healthz"}}, nil},
		{"check of another server", &balancer.Options{Check: &balancer.Check{Path: "http://other/"}}, nil},
		{"check with a broken method", &balancer.Options{Check: &balancer.Check{Path: "/", Method: "GET IT"}}, nil},
		{"check without pause", &balancer.Options{Check: &balancer.Check{Interval: -1}}, nil},
		{"check with negative fall", &balancer.Options{Check: &balancer.Check{Fall: -1}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := balancer.NewPool(tt.opts, tt.backends...); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestPoolChangesAtRuntime(t *testing.T) {
	t.Parallel()
	p := balancer.Static("a=http://a.test", "b=http://b.test,weight=3")
	var got []string
	stop := p.OnChange(func(c balancer.Change) {
		got = append(got, fmt.Sprintf("%s %v-%v lost=%v removed=%v", c.Backend.ID(), c.From, c.To, c.Lost, c.Removed))
		if c.Removed && p.Get("d") == nil { // a watcher may change the pool; what it causes is told after
			must(t, p.Add(newBackend(t, "d", 1)))
			got = append(got, "added d")
		}
	})
	p.Get("a").Begin()
	lost := p.Get("a").Lost()
	must(t, p.Add(newBackend(t, "c", 1)))
	must(t, p.Drain("b", 0))
	must(t, p.Drain("b", time.Hour))
	must(t, p.Off("b"))
	must(t, p.Undrain("b"))
	must(t, p.Undrain("b"))
	b := p.Get("b")
	must(t, p.Remove("b"))
	if !closed(b.Lost()) || b.State() != balancer.Down || b.Keeps("key") {
		t.Error("a removed backend is still in use")
	}
	if p.Get("a").InFlight() != 1 || closed(lost) {
		t.Error("changes of other backends touched a")
	}
	p.Get("a").End()
	stop()
	must(t, p.Off("a"))

	want := []string{
		"c down-up lost=false removed=false",
		"b up-draining lost=false removed=false",
		"b draining-draining lost=false removed=false",
		"b draining-down lost=true removed=false",
		"b down-up lost=false removed=false",
		"b up-up lost=false removed=false",
		"b up-down lost=true removed=true",
		"added d",
		"d down-up lost=false removed=false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var ids []string
	for b := range p.All() {
		ids = append(ids, b.ID())
	}
	if !slices.Equal(ids, []string{"a", "c", "d"}) || p.Len() != 3 {
		t.Errorf("backends %v, %d of them", ids, p.Len())
	}
	for what, err := range map[string]error{
		"Add":    p.Add(newBackend(t, "a", 1)),
		"Remove": p.Remove("b"), "Drain": p.Drain("b", 0), "Off": p.Off("b"), "Undrain": p.Undrain("b"),
		"Drain within less than nothing": p.Drain("a", -1),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if p.Add(b) == nil {
		t.Error("a removed backend was added again")
	}
}

func TestOnLost(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil, "a")
	a := p.Get("a")
	lost := make(chan string, 3)
	stop := a.OnLost(func() { lost <- "stopped" })
	a.OnLost(func() { lost <- "waiting" })
	if !stop() {
		t.Error("stop came too late")
	}
	must(t, p.Off("a"))
	if got := <-lost; got != "waiting" {
		t.Errorf("called: %s", got)
	}
	a.OnLost(func() { lost <- "late" })
	if got := <-lost; got != "late" {
		t.Errorf("called: %s", got)
	}
}

func TestWatcherThatPanics(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil, "a")
	stop := p.OnChange(func(balancer.Change) { panic("watcher") })
	func() {
		defer func() { recover() }()
		p.Off("a")
	}()
	stop()
	told := 0
	p.OnChange(func(balancer.Change) { told++ })
	must(t, p.Undrain("a"))
	if told != 1 {
		t.Errorf("told %d changes after a watcher panicked, want 1", told)
	}
}

func TestPoolThatIsNeverRunWarnsOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		check *balancer.Check
		want  int
	}{
		{"with a check", &balancer.Check{}, 1},
		{"without", nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				p := newPool(t, &balancer.Options{Check: tt.check, Logger: slog.New(slog.NewTextHandler(&log, nil))}, "a")
				log.Reset()
				p.Pick(nil, "", "")
				if log.Len() > 0 {
					t.Errorf("warned too early: %s", &log)
				}
				time.Sleep(11 * time.Second)
				p.Pick(nil, "", "")
				p.Pick(nil, "a", "")
				if n := strings.Count(log.String(), "level=WARN"); n != tt.want {
					t.Errorf("warned %d times, want %d: %s", n, tt.want, &log)
				}
			})
		})
	}
}
