package balancer_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

func check(c balancer.Check) *balancer.Options { return &balancer.Options{Check: &c} }

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
		want     string // in the error
	}{
		{"same ID twice", nil, []*balancer.Backend{newBackend(t, "a", 1), newBackend(t, "a", 2)}, "ID a"},
		{"backend of another pool", nil, []*balancer.Backend{taken}, "taken"},
		{"nil backend", nil, []*balancer.Backend{nil}, "nil"},
		{"check of a relative path", check(balancer.Check{Path: "healthz"}), nil, `"healthz"`},
		{"check of another server", check(balancer.Check{Path: "http://other/"}), nil, `"http://other/"`},
		{"check with a broken method", check(balancer.Check{Path: "/", Method: "GET IT"}), nil, "GET IT"},
		{"check with a method in lower case", check(balancer.Check{Path: "/", Method: "get"}), nil, `write "GET"`},
		{"check without pause", check(balancer.Check{Interval: -1}), nil, "Interval -1ns"},
		{"check at every moment", check(balancer.Check{Interval: 5}), nil, "Interval 5ns"}, // of seconds, it was meant
		{"check without time", check(balancer.Check{Timeout: 5}), nil, "Timeout 5ns: a number without a unit"},
		{"check with negative timeout", check(balancer.Check{Timeout: -1}), nil, "Timeout -1ns"},
		{"check with negative rise", check(balancer.Check{Rise: -1}), nil, "Rise -1"},
		{"check with negative fall", check(balancer.Check{Fall: -1}), nil, "Fall -1"},
		{"check that expects what can't be", check(balancer.Check{Path: "/", Expect: []int{200, 999}}), nil, "Expect has 999"},
		{"check that expects 600", check(balancer.Check{Path: "/", Expect: []int{600}}), nil, "Expect has 600"},
		{"check that expects what isn't final", check(balancer.Check{Path: "/", Expect: []int{100}}), nil, "Expect has 100"},
		{"check that expects nothing", check(balancer.Check{Path: "/", Expect: []int{}}), nil, "Expect is empty"},
		{"check that expects without asking", check(balancer.Check{Expect: []int{200}}), nil, "need a Path"},
		{"check with a method without a path", check(balancer.Check{Method: "GET"}), nil, "need a Path"},
		{"check with a host without a path", check(balancer.Check{Host: "h.test"}), nil, "need a Path"},
		{"check of a host that can't be", check(balancer.Check{Path: "/", Host: "h.test/x"}), nil, `Host "h.test/x"`},
		{"check of a host with a space", check(balancer.Check{Path: "/", Host: "h test"}), nil, `Host "h test"`},
		{"negative time to dial", &balancer.Options{Transport: &balancer.Transport{DialTimeout: -1}}, nil, "DialTimeout"},
		{"negative time to be idle", &balancer.Options{Transport: &balancer.Transport{IdleTimeout: -1}}, nil, "IdleTimeout"},
		{"fewer than no connections", &balancer.Options{Transport: &balancer.Transport{MaxIdle: -1}}, nil, "MaxIdle -1"},
		{"a PROXY protocol to come", &balancer.Options{Transport: &balancer.Transport{ProxyProtocol: 3}}, nil, "ProxyProtocol 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := balancer.NewPool(tt.opts, tt.backends...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	good := check(balancer.Check{Path: "/health?deep=1", Method: "OPTIONS", Host: "[::1]:80", Expect: []int{101, 200, 404, 599}})
	if _, err := balancer.NewPool(good); err != nil {
		t.Error(err)
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
		"Drain without a unit":           p.Drain("a", 30),
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
	pick := func(p *balancer.Pool) { p.Pick(nil, "", "") }
	fail := func(p *balancer.Pool) { p.Report(p.Get("a"), syscall.ECONNRESET) }
	for _, tt := range []struct {
		name  string
		opts  balancer.Options
		run   bool // at the end of the first second
		after time.Duration
		do    func(*balancer.Pool)
		want  string // "" for no warning
	}{
		{"with a check", balancer.Options{Check: &balancer.Check{}}, false, 11 * time.Second, pick, "taken to be up"},
		{"with the default", balancer.Options{}, false, 11 * time.Second, pick, "go pool.Run(ctx)"},
		{"soon", balancer.Options{}, false, 9 * time.Second, pick, ""},
		{"an attempt failed", balancer.Options{}, false, 2 * time.Second, fail, "taken to be up"},
		{"an attempt failed soon", balancer.Options{}, false, time.Second, fail, ""},
		{"all are down at the start", balancer.Options{StartDown: true}, false, 2 * time.Second, pick, "taken to be down"},
		{"run late", balancer.Options{Check: &balancer.Check{}}, true, time.Hour, pick, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				tt.opts.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
				p := newPool(t, &tt.opts, "a")
				time.Sleep(time.Hour) // it is the first Pick that counts
				pick(p)
				time.Sleep(time.Second)
				if tt.run {
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					must(t, p.Run(ctx))
				}
				if log.Len() > 0 {
					t.Errorf("warned too early: %s", &log)
				}
				time.Sleep(tt.after - time.Second)
				for range 3 {
					tt.do(p)
				}
				if n := strings.Count(log.String(), "level=WARN"); n > 1 || (n == 1) != (tt.want != "") || !strings.Contains(log.String(), tt.want) {
					t.Errorf("warned %d times, want %q: %s", n, tt.want, &log)
				}
			})
		})
	}
}

func TestPoolWarnsOfTwins(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	opts := &balancer.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	backend := func(spec string) *balancer.Backend {
		b, err := balancer.ParseBackend(spec)
		must(t, err)
		return b
	}
	for _, tt := range []struct {
		specs [2]string
		warns bool
	}{
		{[2]string{"a=http://h.test:3000", "b=http://h.test:3001"}, false},
		{[2]string{"a=http://h.test:3000", "b=http://h.test:3000/"}, true},
		{[2]string{"a=unix:///run/a", "b=unix:///run/b"}, false},
	} {
		log.Reset()
		_, err := balancer.NewPool(opts, backend(tt.specs[0]), backend(tt.specs[1]))
		must(t, err)
		if (log.Len() > 0) != tt.warns {
			t.Errorf("%v: %s", tt.specs, &log)
		}
	}
}
