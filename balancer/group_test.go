package balancer_test

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// versions returns a pool of three stable backends and two canaries.
func versions(t testing.TB, opts *balancer.Options) *balancer.Pool {
	t.Helper()
	p, err := balancer.ParsePool(opts,
		"s1=http://s1.test,group=stable", "s2=http://s2.test,weight=2,group=stable", "s3=http://s3.test,group=stable",
		"c1=http://c1.test,group=canary", "canary=http://c2.test,group=canary")
	must(t, err)
	return p
}

func pick(t testing.TB, p *balancer.Pool, home, key string, tried ...*balancer.Backend) *balancer.Backend {
	t.Helper()
	b, err := p.Pick(nil, home, key, tried...)
	must(t, err)
	return b
}

func TestSetGroup(t *testing.T) {
	t.Parallel()
	b, err := balancer.ParseBackend("a=http://h,group=canary,weight=3")
	must(t, err)
	if b.Group() != "canary" || b.Weight() != 3 {
		t.Errorf("group %q, weight %d", b.Group(), b.Weight())
	}
	must(t, b.SetGroup(""))
	must(t, b.SetGroup("v2"))
	for _, name := range []string{"a b", strings.Repeat("a", 65), "é"} {
		if b.SetGroup(name) == nil {
			t.Errorf("group %q is accepted", name)
		}
	}
	p := newPool(t, nil)
	must(t, p.Add(b))
	if err := b.SetGroup("v3"); err == nil || b.Group() != "v2" {
		t.Errorf("a group changes within the pool: %v", err)
	}
}

func TestSetShares(t *testing.T) {
	t.Parallel()
	p := versions(t, nil)
	told := 0
	stop := p.OnShares(func() { told++ })
	many := make(map[string]int)
	for i := range 65 {
		many[fmt.Sprint(i)] = 1
	}
	for _, tt := range []struct {
		name   string
		shares map[string]int
		ok     bool
	}{
		{"two", map[string]int{"stable": 99, "canary": 1}, true},
		{"one, and those in no group", map[string]int{"": 99, "canary": 1}, true},
		{"a group that isn't there yet", map[string]int{"v3": 1}, true},
		{"none", nil, true},
		{"all zero", map[string]int{"stable": 0}, false},
		{"negative", map[string]int{"stable": 1, "canary": -1}, false},
		{"too large", map[string]int{"stable": balancer.MaxWeight + 1}, false},
		{"no name", map[string]int{"a b": 1}, false},
		{"too many", many, false},
	} {
		before, calls := p.Shares(), told
		err := p.SetShares(tt.shares)
		if (err == nil) != tt.ok {
			t.Errorf("%s: error %v", tt.name, err)
		}
		want := tt.shares
		if !tt.ok {
			want = before
			calls--
		}
		if got := p.Shares(); !maps.Equal(got, want) || told != calls+1 {
			t.Errorf("%s: the shares are %v, want %v; told %d times", tt.name, got, want, told-calls)
		}
	}
	stop()
	calls := told
	must(t, p.SetShares(nil))
	if told != calls {
		t.Error("told after stop")
	}
}

// Shares that no backend has a part in are accepted, as groups may come later, but logged.
func TestSharesOfNoBackend(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		shares map[string]int
		warns  bool
	}{
		{"a typo", map[string]int{"stabel": 99, "canary": 0}, true},
		{"one of two is there", map[string]int{"stabel": 99, "canary": 1}, false},
		{"none", nil, false},
	} {
		var text strings.Builder
		p := versions(t, &balancer.Options{Logger: slog.New(slog.NewTextHandler(&text, nil))})
		must(t, p.SetShares(tt.shares))
		if got := strings.Contains(text.String(), "level=WARN") && strings.Contains(text.String(), "[canary stable]"); got != tt.warns {
			t.Errorf("%s: warned %v, log %s", tt.name, got, text.String())
		}
	}
}

// New clients without a key come out as the shares say, whatever picks within a group, and
// each group's backends get theirs by weight.
func TestSharesOfNewClients(t *testing.T) {
	t.Parallel()
	for name, picker := range pickers() {
		p := versions(t, &balancer.Options{Picker: picker})
		for _, canary := range []int{1, 10, 50, 100, 10, 0} {
			must(t, p.SetShares(map[string]int{"stable": 100 - canary, "canary": canary}))
			groups, ids := map[string]int{}, map[string]int{}
			for range 1000 {
				b := pick(t, p, "", "")
				groups[b.Group()]++
				ids[b.ID()]++
				if name == "RoundRobin" {
					continue
				}
				b.Begin()
				defer b.End()
			}
			if off := groups["canary"] - 10*canary; off < -3 || off > 3 {
				t.Errorf("%s: canary has %d clients of 1000 by a share of %d%%", name, groups["canary"], canary)
			}
			if name == "RoundRobin" {
				for id, part := range map[string]float64{"s1": 0.25, "s2": 0.5, "s3": 0.25, "c1": 0.5, "canary": 0.5} {
					want := part * float64(groups[p.Get(id).Group()])
					if got := float64(ids[id]); got < want-2 || got > want+2 {
						t.Errorf("canary %d%%: %s has %v clients, want %v of its group", canary, id, got, want)
					}
				}
			}
		}
	}
}

// A step of the shares moves only keys into the group whose share rises, and only as many
// as needed. On the way back the same keys leave.
func TestSharesByKeyAreMonotone(t *testing.T) {
	t.Parallel()
	const keys = 20_000
	p, replica := versions(t, nil), versions(t, nil)
	groups := func(canary int) map[int]string {
		shares := map[string]int{"stable": 100 - canary, "canary": canary}
		must(t, p.SetShares(shares))
		must(t, replica.SetShares(shares))
		of := make(map[int]string, keys)
		ids := make(map[string]int)
		for i := range keys {
			b := pick(t, p, "", fmt.Sprint("client-", i))
			if other := pick(t, replica, "", fmt.Sprint("client-", i)); other.ID() != b.ID() {
				t.Fatalf("replicas place client %d at %s and %s", i, b.ID(), other.ID())
			}
			of[i] = b.Group()
			ids[b.ID()]++
		}
		n := ids["c1"] + ids["canary"]
		if want := keys * canary / 100; n < want*9/10-20 || n > want*11/10+20 {
			t.Errorf("canary has %d keys, want about %d", n, want)
		}
		// A backend with the name of its group is no better than another.
		if half := n / 2; canary > 0 && (ids["canary"] < half*8/10 || ids["canary"] > half*12/10) {
			t.Errorf("canary %d%%: %d of the %d keys are at the backend of that name", canary, ids["canary"], n)
		}
		return of
	}
	before := groups(0)
	for _, canary := range []int{1, 10, 50, 100, 50, 1, 0} {
		now := groups(canary)
		moved := map[string]int{}
		for i, group := range before {
			if now[i] != group {
				moved[now[i]]++
			}
		}
		if moved["stable"] > 0 && moved["canary"] > 0 {
			t.Errorf("at %d%% keys move both ways: %v", canary, moved)
		}
		before = now
	}
}

func TestClientsStickToTheirGroup(t *testing.T) {
	t.Parallel()
	p := versions(t, &balancer.Options{Picker: first{}})
	must(t, p.SetShares(map[string]int{"stable": 1000, "canary": 1}))
	must(t, p.Off("c1"))
	for i := range 100 {
		key := ""
		if i%2 == 0 {
			key = fmt.Sprint("client-", i)
		}
		if b := pick(t, p, "c1", key); b.ID() != "canary" {
			t.Fatalf("a canary's client goes to %s", b.ID())
		}
		if b := pick(t, p, "s1", key, p.Get("s1")); b.Group() != "stable" {
			t.Fatalf("a stable one's client goes to %s", b.ID())
		}
	}

	// Also when its home was removed, and when its group gets no new clients.
	must(t, p.Remove("c1"))
	must(t, p.SetShares(map[string]int{"stable": 1}))
	if b := pick(t, p, "c1", "key"); b.ID() != "canary" {
		t.Errorf("a client of a removed canary goes to %s", b.ID())
	}
	if b := pick(t, p, "canary", "key"); b.ID() != "canary" {
		t.Errorf("a share of 0 sends a client away, to %s", b.ID())
	}
	// A request that was tried at all of its group goes elsewhere, and so does a client of a group that is gone.
	if b := pick(t, p, "canary", "key", p.Get("canary")); b.Group() != "stable" {
		t.Errorf("goes to %s", b.ID())
	}
	must(t, p.Off("canary"))
	for _, key := range []string{"", "key"} {
		if b := pick(t, p, "canary", key); b.Group() != "stable" {
			t.Errorf("after a rollback a client goes to %s", b.ID())
		}
	}
	// When no group with a share is up, any other is better than none.
	must(t, p.Undrain("canary"))
	for _, id := range []string{"s1", "s2", "s3"} {
		must(t, p.Off(id))
	}
	if b := pick(t, p, "", ""); b.ID() != "canary" {
		t.Errorf("a new client goes to %s", b.ID())
	}
	must(t, p.Off("canary"))
	if _, err := p.Pick(nil, "", ""); !errors.Is(err, balancer.ErrNoBackend) {
		t.Error(err)
	}
}

// A new client that failed at one backend of its group is tried at the next one there.
func TestRetryStaysInTheGroup(t *testing.T) {
	t.Parallel()
	p := versions(t, nil)
	must(t, p.SetShares(map[string]int{"stable": 1, "canary": 1}))
	for range 100 {
		b := pick(t, p, "", "")
		if next := pick(t, p, "", "", b); next == b || next.Group() != b.Group() {
			t.Fatalf("after %s in %s a client is tried at %s in %s", b.ID(), b.Group(), next.ID(), next.Group())
		}
	}
}

// What is remembered of removed backends is bounded, and the latest counts.
func TestRemovedBackendsAreRemembered(t *testing.T) {
	t.Parallel()
	p := versions(t, nil)
	must(t, p.SetShares(map[string]int{"stable": 1000, "canary": 1}))
	remove := func(id, group string) {
		b := newBackend(t, id, 1)
		must(t, b.SetGroup(group))
		must(t, p.Add(b))
		must(t, p.Remove(id))
	}
	remove("old", "canary")
	remove("new", "stable")
	remove("new", "canary")
	for i := range 1022 {
		remove(fmt.Sprint("pod-", i), "stable")
	}
	at := func(home string) (canary int) {
		for i := range 100 {
			if pick(t, p, home, fmt.Sprint(i)).Group() == "canary" {
				canary++
			}
		}
		return canary
	}
	if n := at("old"); n != 100 {
		t.Errorf("%d of 100 clients of a removed canary stay in the group", n)
	}
	remove("one-more", "stable")
	if n := at("old"); n > 10 {
		t.Errorf("%d of 100 clients of a backend that is forgotten go to its group", n)
	}
	if n := at("new"); n != 100 {
		t.Errorf("%d of 100 clients of a backend that has changed its group go to the later one", n)
	}
}

func TestPickInGroupsAllocatesNothing(t *testing.T) {
	for name, picker := range pickers() {
		p := versions(t, &balancer.Options{Picker: picker})
		must(t, p.SetShares(map[string]int{"stable": 60, "canary": 40}))
		must(t, p.Drain("c1", time.Hour))
		pick(t, p, "", "")
		var r *http.Request
		if n := testing.AllocsPerRun(100, func() {
			p.Pick(r, "", "")
			p.Pick(r, "s1", "key")
			p.Pick(r, "", "key")
			p.Pick(r, "gone", "key")
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// However many groups there may be, a picker keeps what it has computed for each.
func TestManyGroups(t *testing.T) { // not parallel: it counts allocations
	const groups = 64
	for name, picker := range pickers() {
		var specs []string
		shares := make(map[string]int)
		for i := range groups {
			shares[fmt.Sprint("g", i)] = 1
			specs = append(specs, fmt.Sprintf("a%d=http://a%[1]d.test,group=g%[1]d", i), fmt.Sprintf("b%d=http://b%[1]d.test,group=g%[1]d", i))
		}
		p, err := balancer.ParsePool(&balancer.Options{Picker: picker}, specs...)
		must(t, err)
		must(t, p.SetShares(shares))
		for range 10 * groups { // each group had its turn
			pick(t, p, "", "")
		}
		if n := testing.AllocsPerRun(10*groups, func() { p.Pick(nil, "", "") }); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
