package status_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/bus"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/status"
)

// The names of the fields are a promise to scripts. [] stands for the elements of an array,
// * for a name that isn't fixed.
const contract = `
backends[].check_ms backends[].checked backends[].configured_weight
backends[].drain.at_start backends[].drain.empty backends[].drain.left backends[].drain.since backends[].drain.until
backends[].error_rate backends[].health backends[].id
backends[].last.errors backends[].last.p50 backends[].last.p99 backends[].last.rate backends[].last.tunnels
backends[].p50_ms backends[].p99_ms backends[].rate
backends[].requests backends[].since backends[].state
backends[].totals.bytes_in backends[].totals.bytes_out backends[].totals.errors backends[].totals.moved_in
backends[].totals.requests backends[].totals.retries backends[].totals.tunnels_closed backends[].totals.tunnels_opened
backends[].tunnels backends[].url backends[].weight backends[].why backends[].wish
events[].backend events[].id events[].kind events[].text events[].time events[].who
gateway.name gateway.ready gateway.since gateway.steering
history.*.errors[] history.*.p50[] history.*.p99[] history.*.rate[] history.*.tunnels[]
parts[].name parts[].ok parts[].text
pins.expired pins.forged pins.hit pins.moved pins.new pins.unknown
replicas[].backends.*.requests replicas[].backends.*.state replicas[].backends.*.tunnels
replicas[].heard replicas[].id replicas[].name
requests second time
totals.aborted totals.by_affinity totals.by_backend totals.by_gateway totals.requests totals.retries
totals.tunnels_closed totals.tunnels_opened
tunnels
`

// optional are names that are there only when there is something to say.
const optional = "shares.* backends[].group backends[].check_error gateway.steering_refused findings[].code findings[].what findings[].cure findings[].since findings[].count"

// names returns the names of the fields below v.
func names(v any, prefix string, all map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			if prefix == "history" || strings.HasSuffix(prefix, "replicas[].backends") {
				name = "*"
			}
			names(value, strings.TrimPrefix(prefix+"."+name, "."), all)
		}
	case []any:
		for _, value := range v {
			names(value, prefix+"[]", all)
		}
	default:
		all[prefix] = true
	}
}

func TestContract(t *testing.T) {
	t.Parallel()
	memory := &bus.Memory{}
	g := newRig(t, "a b", &status.Options{Authorize: everybody, Parts: map[string]func() (string, error){
		"store": func() (string, error) { return "answers", nil },
	}}, &limpet.Options{Bus: memory, Name: "gw1"})
	other := newRig(t, "a b", nil, &limpet.Options{Bus: memory, Name: "gw2"})
	g.run()
	other.run()
	g.check()
	get(t, newClient(t), g.srv.URL)
	g.steer("backends/a/drain", `{"within":"1h"}`)
	eventually(t, "another replica, and a second of history", func() bool {
		v := g.state("?history=1")
		return len(v.Replicas) == 1 && len(v.Replicas[0].Backends) > 0 &&
			slices.ContainsFunc(v.Backends, func(b backendView) bool { return b.P99 != nil })
	})
	var v any
	g.read("state?history=1", &v)
	all := make(map[string]bool)
	names(v, "", all)
	want := strings.Fields(contract)
	for _, name := range want {
		if !all[name] {
			t.Errorf("%s is missing", name)
		}
	}
	for name := range all {
		if !slices.Contains(want, name) && !slices.Contains(strings.Fields(optional), name) {
			t.Errorf("%s is new: add it to the contract", name)
		}
	}
	text, _ := json.Marshal(v)
	if !strings.Contains(string(text), `"state":"draining"`) {
		t.Errorf("no backend is draining in %s", text)
	}
}

// A state before anything has happened has all lists, and none is null.
func TestEmptyState(t *testing.T) {
	t.Parallel()
	g := newRig(t, "", nil, nil)
	a := g.call("GET", "state?history=1", "")
	for _, want := range []string{`"backends":[]`, `"replicas":[]`, `"parts":[]`, `"findings":[]`, `"steering":false`, `"ready":false`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("no %s in %s", want, a.body)
		}
	}
	if strings.Contains(a.body, "steering_refused") {
		t.Errorf("nobody was refused: %s", a.body)
	}
}

func TestParts(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", &status.Options{Parts: map[string]func() (string, error){
		"store": func() (string, error) { return "", errors.New("Redis is away") },
		"bus":   func() (string, error) { return "3 topics", nil },
	}}, nil)
	v := g.state("")
	if len(v.Parts) != 2 || v.Parts[0].Name != "bus" || !v.Parts[0].OK || v.Parts[1].Text != "Redis is away" || v.Parts[1].OK {
		t.Errorf("parts %+v", v.Parts)
	}
}

// A long poll and an event stream count as requests, but not in the quantiles: they
// measure how long there was no news.
func TestLongAnswersAreNoDelays(t *testing.T) {
	t.Parallel()
	streams := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/events") {
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		}
		io.WriteString(w, "well")
	})
	long := func(rec *limpet.Record) bool { return rec.Request.URL.Path == "/signalr/poll" }
	for path, measured := range map[string]bool{
		"/":                                   true,
		"/socket.io/?EIO=4&transport=polling": true, // opens a session, which is answered at once
		"/socket.io/?EIO=4&transport=polling&sid=x": false,
		"/events":       false,
		"/signalr/poll": false,
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, "", &status.Options{Long: long}, nil)
			g.add("a", newNode(t, "a", streams).URL)
			g.get(path)
			eventually(t, "the end of the second", func() bool { return g.backend("a").Rate > 0 })
			b := g.backend("a")
			if (b.P99 != nil) != measured {
				t.Errorf("p99 %v, want one: %t", b.P99, measured)
			}
			if b.Totals["requests"] != 1 {
				t.Errorf("counted %d requests", b.Totals["requests"])
			}
		})
	}
}

// The history has one number for each of the last 60 seconds, whatever happened.
func TestHistory(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a b", nil, nil)
	c := newClient(t)
	home := get(t, c, g.srv.URL)
	dial(t, c, g.srv.URL)
	eventually(t, "the end of the second", func() bool { return g.backend(home).P99 != nil })
	v := g.state("?history=1")
	for id, h := range v.History {
		for name, numbers := range h {
			if len(numbers) != 60 {
				t.Errorf("%s: %d numbers of %s", id, len(numbers), name)
			}
		}
		var answered float64
		for i, n := range h["rate"] {
			answered += *n
			if quiet := *n == 0; quiet && h["p50"][i] != nil {
				t.Errorf("%s: a time in a second without requests", id)
			}
		}
		want := 0.0
		if id == home {
			want = 2
		}
		if answered != want {
			t.Errorf("%s: %v requests, want %v", id, answered, want)
		}
		if first := *h["tunnels"][0]; first != 0 {
			t.Errorf("%s: %v tunnels a minute ago", id, first)
		}
	}
	if last := *v.History[home]["tunnels"][59]; last != 1 {
		t.Errorf("%v tunnels a second ago", last)
	}
}

// The timeline tells in words what happened to a backend.
func TestTimeline(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a b", &status.Options{Authorize: everybody, Who: named("alice")}, nil)
	c := newClient(t)
	_, home := dial(t, c, g.srv.URL)
	g.run()
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "its tunnel", func() bool { return g.backend(home).Tunnels == 1 })
	do(g.pool.Drain(home, time.Hour))
	do(g.pool.Undrain(home))
	do(g.pool.SetWeight(home, 5))
	g.steer("backends/"+home+"/weight", `{"weight":7}`)
	do(g.pool.Off(home))
	eventually(t, "empty", func() bool { return len(g.texts("empty")) == 1 })
	do(g.pool.Undrain(home))
	do(g.pool.Remove(home))
	g.add(home, g.nodes[home].URL)
	for kind, want := range map[string]string{
		"drain":   home + " is drained within 1h: its clients leave one by one. It has 1 tunnel.",
		"serve":   home + " serves again.",
		"weight":  home + " has the weight 7 now, of 1 configured.",
		"off":     home + " is turned off, its clients move. 1 tunnel is closed.",
		"empty":   home + " is empty: it has no request and no tunnel from this gateway any more. It may be stopped.",
		"removed": home + " was removed from the pool. Its clients move.",
		"added":   home + " was added: " + g.nodes[home].URL + ", weight 1, up.",
	} {
		if texts := g.texts(kind); len(texts) == 0 || texts[0] != want {
			t.Errorf("%s: %q, want %q", kind, texts, want)
		}
	}
	for _, e := range g.state("?history=1").Events {
		if want := strings.Contains(e.Text, "weight 7"); (e.Who == "alice") != want {
			t.Errorf("%q by %q", e.Text, e.Who)
		}
	}
}

// In a drain without a deadline a backend is empty after each request, which is told once.
func TestTimelineOfALongDrain(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a b", nil, nil)
	c := newClient(t)
	home := get(t, c, g.srv.URL)
	for n := range 2 {
		if err := g.pool.Drain(home, 0); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if got := get(t, c, g.srv.URL); got != home {
				t.Fatalf("served by %s", got)
			}
		}
		eventually(t, "empty", func() bool { return len(g.texts("empty")) > n })
	}
	if texts := g.texts("empty"); len(texts) != 2 || !strings.Contains(texts[0], "clients may still come back") {
		t.Errorf("told %q", texts)
	}
}

// A crash is told with what the check found, and when nobody is left that is told too.
func TestTimelineOfACrash(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", nil, nil)
	g.check()
	g.nodes["a"].Kill()
	eventually(t, "the crash", func() bool { return len(g.texts("down")) > 0 })
	text := g.texts("down")[0]
	if !strings.Contains(text, "connection refused") || !strings.Contains(text, "No backend is left") {
		t.Errorf("told %q", text)
	}
	if b := g.backend("a"); b.Health != "dead" || !strings.Contains(b.CheckError, "connection refused") {
		t.Errorf("the state has %+v", b)
	}
}

// Of many events the last 200 stay, the newest first.
func TestTimelineIsBounded(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", nil, nil)
	for range 150 {
		_ = g.pool.Drain("a", 0)
		_ = g.pool.Undrain("a")
	}
	events := g.state("?history=1").Events
	if len(events) != 200 || events[0].Kind != "serve" {
		t.Fatalf("%d events, the first %+v", len(events), events[0])
	}
	for i := range events[1:] {
		if events[i+1].ID != events[i].ID-1 {
			t.Fatalf("%d follows %d", events[i+1].ID, events[i].ID)
		}
	}
}
