package balancer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A feed is a source whose answers a test makes.
type feed chan answer

type answer struct {
	targets []balancer.Target
	err     error
}

func (f feed) Watch(ctx context.Context, update func([]balancer.Target, error)) {
	for {
		select {
		case a, ok := <-f:
			if !ok {
				return
			}
			update(a.targets, a.err)
		case <-ctx.Done():
			return
		}
	}
}

func (f feed) String() string { return "the feed" }

// name makes the feed name these targets, written as ID or ID@HOST, and waits until the pool
// follows.
func (f feed) name(specs ...string) {
	var targets []balancer.Target
	for _, spec := range specs {
		id, host, ok := strings.Cut(spec, "@")
		if !ok {
			host = id + ".test"
		}
		targets = append(targets, balancer.Target{ID: id, URL: "http://" + host})
	}
	f.send(answer{targets: targets})
}

func (f feed) send(a answer) {
	f <- a
	synctest.Wait()
}

// follow starts to follow a feed, until the test ends.
func follow(t *testing.T, p *balancer.Pool) feed {
	t.Helper()
	f := make(feed)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Follow(ctx, f) }()
	t.Cleanup(func() {
		stop()
		must(t, <-ended)
	})
	return f
}

// followedPool returns a pool that writes its log to a buffer, and its changes to a list.
func followedPool(t *testing.T, opts balancer.Options) (p *balancer.Pool, log *bytes.Buffer, changes func() []string) {
	t.Helper()
	log = &bytes.Buffer{}
	opts.Logger = slog.New(slog.NewTextHandler(log, nil))
	p, err := balancer.NewPool(&opts)
	must(t, err)
	var mu sync.Mutex
	var list []string
	p.OnChange(func(c balancer.Change) {
		mu.Lock()
		defer mu.Unlock()
		line := fmt.Sprintf("%s %v-%v %s", c.Backend.ID(), c.From, c.To, c.Why)
		if c.Lost {
			line += ", lost"
		}
		list = append(list, line)
	})
	return p, log, func() []string {
		mu.Lock()
		defer mu.Unlock()
		defer func() { list = nil }()
		return list
	}
}

func states(p *balancer.Pool) string {
	var list []string
	for b := range p.All() {
		list = append(list, fmt.Sprintf("%s@%s %v", b.ID(), b.URL().Host, b.State()))
	}
	return strings.Join(list, ", ")
}

func want[T any](t *testing.T, got, want T) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("got  %s\nwant %s", g, w)
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, log, changes := followedPool(t, balancer.Options{})
		f := follow(t, p)
		f.name("a", "b")
		want(t, states(p), "a@a.test up, b@b.test up")
		changes()

		b := p.Get("b")
		f.name("a", "b@elsewhere.test:81")
		want(t, states(p), "a@a.test up, b@elsewhere.test:81 up")
		want(t, changes(), []string{"b up-down moved to http://elsewhere.test:81, lost", "b down-up added"})
		if !closed(b.Lost()) || p.Get("b") == b {
			t.Error("the clients of the old address stay there")
		}

		a := p.Get("a")
		f.name("b@elsewhere.test:81", "c")
		want(t, states(p), "a@a.test draining, b@elsewhere.test:81 up, c@c.test up")
		time.Sleep(29 * time.Second)
		synctest.Wait()
		if p.Get("a") != a || closed(a.Lost()) {
			t.Error("a is lost before the end of its drain")
		}
		f.name("a", "b@elsewhere.test:81", "c")
		want(t, states(p), "a@a.test up, b@elsewhere.test:81 up, c@c.test up")
		if p.Get("a") != a {
			t.Error("a has lost its connections, though it is back in time")
		}
		f.name("b@elsewhere.test:81", "c")
		changes()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		want(t, states(p), "b@elsewhere.test:81 up, c@c.test up")
		want(t, changes(), []string{"a draining-down end of the drain, lost", "a down-down removed"})
		if strings.Contains(log.String(), "discovery") {
			t.Errorf("log: %s", log)
		}
	})
}

// A backend that moves to another address is another process, whose start is slow too.
func TestFollowSlowStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, _, _ := followedPool(t, balancer.Options{SlowStart: time.Minute})
		f := follow(t, p)
		f.name("a", "b")
		time.Sleep(time.Minute)
		synctest.Wait()
		f.name("a", "b@elsewhere.test:81")
		got := 0
		for range 1100 {
			if pick(t, p, "", "").ID() == "b" {
				got++
			}
		}
		if got != 100 {
			t.Errorf("a process that has just started gets %d of 1,100 new clients, want a tenth of the other's", got)
		}
	})
}

func TestFollowTargets(t *testing.T) {
	t.Parallel()
	target := func(change func(*balancer.Target)) []balancer.Target {
		a := balancer.Target{ID: "a", URL: "http://a.test", Weight: 2}
		if change != nil {
			change(&a)
		}
		return []balancer.Target{a, {ID: "b", URL: "http://b.test"}}
	}
	onlyB := []balancer.Target{{ID: "b", URL: "http://b.test"}}
	for _, tt := range []struct {
		name    string
		answers [][]balancer.Target
		state   balancer.State // of a; Down: it is gone
		weight  int
		within  time.Duration // of its drain
		changes []string      // by the last answer
	}{
		{"weight", [][]balancer.Target{target(nil), target(func(a *balancer.Target) { a.Weight = 5 })},
			balancer.Up, 5, 0, []string{"a up-up source: weight 5"}},
		{"repeated", [][]balancer.Target{target(nil), target(nil)}, balancer.Up, 2, 0, nil},
		{"group", [][]balancer.Target{target(nil), target(func(a *balancer.Target) { a.Group = "canary" })},
			balancer.Up, 2, 0, []string{"a up-down moved to http://a.test, lost", "a down-up added"}},
		{"comes draining", [][]balancer.Target{target(func(a *balancer.Target) { a.Draining, a.Within = true, time.Minute })},
			balancer.Draining, 2, time.Minute, []string{"a down-draining added", "b down-up added"}},
		{"drains without a deadline", [][]balancer.Target{target(nil), target(func(a *balancer.Target) { a.Draining = true })},
			balancer.Draining, 2, 0, []string{"a up-draining source: drain"}},
		{"drains without a deadline, then goes", [][]balancer.Target{target(func(a *balancer.Target) { a.Draining = true }), onlyB},
			balancer.Draining, 2, 30 * time.Second, []string{"a draining-draining source: drain"}},
		{"goes with its grace", [][]balancer.Target{target(func(a *balancer.Target) { a.Grace = time.Minute }), onlyB},
			balancer.Draining, 2, time.Minute, []string{"a up-draining source: drain"}},
		{"drains longer", [][]balancer.Target{target(func(a *balancer.Target) { a.Draining, a.Within = true, time.Minute }), target(func(a *balancer.Target) { a.Draining, a.Within = true, time.Hour })},
			balancer.Draining, 2, time.Hour, []string{"a draining-draining source: drain"}},
		{"drains, then goes", [][]balancer.Target{target(func(a *balancer.Target) { a.Draining, a.Within = true, time.Minute }), onlyB},
			balancer.Draining, 2, time.Minute, nil},
		{"drains, then not", [][]balancer.Target{target(func(a *balancer.Target) { a.Draining = true }), target(nil)},
			balancer.Up, 2, 0, []string{"a draining-up source: serve"}},
		{"is lost at once", [][]balancer.Target{target(func(a *balancer.Target) { a.Grace = -1 }), onlyB},
			balancer.Down, 0, 0, []string{"a up-down source: off, lost", "a down-down removed"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, log, changes := followedPool(t, balancer.Options{})
				f := follow(t, p)
				begun := time.Now()
				for _, targets := range tt.answers {
					changes()
					time.Sleep(time.Second)
					f.send(answer{targets: targets})
				}
				got := slices.DeleteFunc(changes(), func(line string) bool { return strings.HasPrefix(line, "b up-") })
				if fmt.Sprint(got) != fmt.Sprint(tt.changes) {
					t.Errorf("changes %q\nwant    %q", got, tt.changes)
				}
				if a := p.Get("a"); a == nil {
					want(t, balancer.Down, tt.state)
				} else {
					want(t, a.State(), tt.state)
					want(t, a.Weight(), tt.weight)
					want(t, a.ConfiguredWeight(), tt.weight)
					want(t, a.Wanted().Within, tt.within)
					want(t, a.Wish(), balancer.Wish{})
					if tt.within != 0 && a.Wanted().Since.Sub(begun) > 2*time.Second {
						t.Errorf("the drain began at %v", a.Wanted().Since)
					}
				}
				if strings.Contains(log.String(), "discovery") {
					t.Errorf("log: %s", log)
				}
			})
		})
	}
}

// The operator's wish and the source's are kept apart.
func TestFollowOperator(t *testing.T) {
	t.Parallel()
	within := func(d time.Duration) balancer.Wish { return balancer.Wish{State: balancer.Draining, Within: d} }
	for _, tt := range []struct {
		name  string
		do    func(t *testing.T, p *balancer.Pool, f feed)
		state balancer.State
		wish  balancer.Wish // without Since
	}{
		{"drains, is named on", func(t *testing.T, p *balancer.Pool, f feed) {
			must(t, p.Drain("a", time.Hour))
			f.name("a", "b")
		}, balancer.Draining, within(time.Hour)},
		{"drains, is gone and back", func(t *testing.T, p *balancer.Pool, f feed) {
			must(t, p.Drain("a", time.Hour))
			f.name("b")
			f.name("a", "b")
		}, balancer.Draining, within(time.Hour)},
		{"is gone, drains, is back", func(t *testing.T, p *balancer.Pool, f feed) {
			f.name("b")
			must(t, p.Drain("a", time.Hour))
			f.name("a", "b")
		}, balancer.Draining, within(time.Hour)},
		{"undrains what is gone", func(t *testing.T, p *balancer.Pool, f feed) {
			f.name("b")
			must(t, p.Undrain("a"))
		}, balancer.Draining, balancer.Wish{}},
		{"sets the weight of what is gone", func(t *testing.T, p *balancer.Pool, f feed) {
			f.name("b")
			must(t, p.SetWeight("a", 7))
		}, balancer.Draining, balancer.Wish{Weight: 7}},
		{"off, was removed and is back", func(t *testing.T, p *balancer.Pool, f feed) {
			must(t, p.Off("a"))
			f.name("b")
			if p.Get("a") != nil {
				t.Error("a is off and gone, and still in the pool")
			}
			f.name("a", "b")
		}, balancer.Down, balancer.Wish{State: balancer.Down}},
		{"drains, moves", func(t *testing.T, p *balancer.Pool, f feed) {
			must(t, p.SetWeight("a", 7))
			must(t, p.Drain("a", time.Hour))
			f.name("a@elsewhere.test", "b")
		}, balancer.Draining, balancer.Wish{State: balancer.Draining, Within: time.Hour, Weight: 7}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, _, _ := followedPool(t, balancer.Options{})
				f := follow(t, p)
				f.name("a", "b")
				tt.do(t, p, f)
				a := p.Get("a")
				wish := a.Wish()
				wish.Since = time.Time{}
				want(t, wish, tt.wish)
				want(t, a.State(), tt.state)
				if w := max(tt.wish.Weight, 1); a.Weight() != w || a.ConfiguredWeight() != 1 {
					t.Errorf("weight %d of configured %d, want %d of 1", a.Weight(), a.ConfiguredWeight(), w)
				}
			})
		})
	}
}

// What can't be the backends of a pool changes nothing.
func TestFollowBadAnswers(t *testing.T) {
	t.Parallel()
	many := make([]balancer.Target, 10_001)
	for i := range many {
		many[i] = balancer.Target{ID: fmt.Sprint(i), URL: "http://a.test"}
	}
	for _, tt := range []struct {
		name, says string
		answer     answer
	}{
		{"error", "no route", answer{err: errors.New("no route")}},
		{"empty", "names no backend", answer{}},
		{"twice", "two backends with the ID c", answer{targets: []balancer.Target{{ID: "c", URL: "http://c.test"}, {ID: "c", URL: "http://d.test"}}}},
		{"no ID", "backend ID", answer{targets: []balancer.Target{{URL: "http://c.test"}}}},
		{"URL", "its URL", answer{targets: []balancer.Target{{ID: "c", URL: "http://c.test"}, {ID: "d", URL: "c.test:80"}}}},
		{"weight", "weight -1", answer{targets: []balancer.Target{{ID: "c", URL: "http://c.test", Weight: -1}}}},
		{"weight of one that is known", "weight -1", answer{targets: []balancer.Target{{ID: "a", URL: "http://a.test", Weight: -1}}}},
		{"no unit", "30*time.Second", answer{targets: []balancer.Target{{ID: "c", URL: "http://c.test", Within: 30}}}},
		{"grace without a unit", "30*time.Second", answer{targets: []balancer.Target{{ID: "c", URL: "http://c.test", Grace: 30}}}},
		{"below zero", "or 0 for no deadline", answer{targets: []balancer.Target{{ID: "c", URL: "http://c.test", Within: -30}}}},
		{"many", "10000 at most", answer{targets: many}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, log, changes := followedPool(t, balancer.Options{})
				f := follow(t, p)
				f.name("a", "b")
				changes()
				f.send(tt.answer)
				f.send(tt.answer)
				want(t, states(p), "a@a.test up, b@b.test up")
				want(t, changes(), []string{})
				if n := strings.Count(log.String(), "discovery fails"); n != 1 || !strings.Contains(log.String(), tt.says) || !strings.Contains(log.String(), "the feed") {
					t.Errorf("logged %d times, want once and %q:\n%s", n, tt.says, log)
				}
				f.name("a", "b")
				f.name("a", "b")
				if n := strings.Count(log.String(), "discovery works again"); n != 1 {
					t.Errorf("logged %d times that it is well again", n)
				}
			})
		})
	}
}

// Follow leaves alone what it hasn't added.
func TestFollowBesideOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, log, _ := followedPool(t, balancer.Options{})
		must(t, p.Add(newBackend(t, "static", 1)))
		f, g := follow(t, p), follow(t, p)
		f.name("static@else.test", "a")
		g.name("a@else.test", "b")
		want(t, states(p), "static@static.test up, a@a.test up, b@b.test up")
		f.name("static@else.test", "a")
		g.name("a@else.test", "b")
		if n := strings.Count(log.String(), "whose ID another one in the pool has"); n != 2 {
			t.Errorf("logged %d times, want 2:\n%s", n, log)
		}
		f.name("c")
		g.name("c@else.test")
		time.Sleep(time.Hour)
		synctest.Wait()
		want(t, states(p), "static@static.test up, c@c.test up")

		must(t, p.Remove("static"))
		f.name("static@else.test", "c")
		want(t, states(p), "c@c.test up, static@else.test up")

		must(t, p.Remove("c"))
		f.name("static@else.test", "c")
		want(t, states(p), "static@else.test up")
		f.name("static@else.test")
		f.name("static@else.test", "c")
		want(t, states(p), "static@else.test up, c@c.test up")
	})
}

// What isn't named any more and is dead is removed at once, unless the half rule protects
// its clients.
func TestFollowDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dead sync.Map // addresses
		dial := func(_ context.Context, _, addr string) (net.Conn, error) {
			if _, ok := dead.Load(addr); ok {
				return nil, errors.New("no answer")
			}
			ours, theirs := net.Pipe()
			theirs.Close()
			return ours, nil
		}
		p, _, _ := followedPool(t, balancer.Options{Transport: &balancer.Transport{Dial: dial}})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.Run(ctx) }()
		f := follow(t, p)
		f.name("a", "b", "c")
		time.Sleep(5 * time.Second)
		f.name("b", "c")
		want(t, states(p), "a@a.test draining, b@b.test up, c@c.test up")
		dead.Store("a.test:80", true)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		want(t, states(p), "b@b.test up, c@c.test up")

		dead.Store("b.test:80", true)
		dead.Store("c.test:80", true)
		time.Sleep(5*time.Second + 50*time.Millisecond) // no check comes at this moment: they come in tenths of a second
		want(t, states(p), "b@b.test down, c@c.test down")
		f.name("d")
		var left int
		for b := range p.All() {
			if b.ID() != "d" && !closed(b.Lost()) {
				left++
			}
		}
		if left == 0 {
			t.Errorf("all are lost, though most of the pool seems dead: %s", states(p))
		}
		stop()
		must(t, <-ended)
	})
}

type invalid struct{ feed }

func (invalid) Validate() error { return errors.New("no host") }

func TestFollowEnds(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil)
	if err := p.Follow(t.Context(), nil); err == nil {
		t.Error("followed nothing")
	}
	if err := p.Follow(t.Context(), invalid{}); err == nil || err.Error() != "no host" {
		t.Errorf("an invalid source: %v", err)
	}
	f := make(feed)
	close(f)
	if err := p.Follow(t.Context(), f); err == nil || !strings.Contains(err.Error(), "the feed has ended") {
		t.Errorf("a source that ends: %v", err)
	}
}

// Follow ends soon, however much is left to do of an answer.
func TestFollowEndsWithinAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, err := balancer.NewPool(nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer pool.OnChange(func(balancer.Change) { cancel() })()
		var targets []balancer.Target
		for i := range 100 {
			targets = append(targets, balancer.Target{ID: fmt.Sprint(i), URL: "http://h.test"})
		}
		source := make(feed, 1)
		source <- answer{targets: targets}
		if err := pool.Follow(ctx, source); err != nil || pool.Len() != 1 {
			t.Errorf("%d backends, %v", pool.Len(), err)
		}
	})
}
