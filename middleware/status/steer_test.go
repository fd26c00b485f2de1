package status_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/status"
)

// Every call that changes something, or shows who the clients are.
var steering = []struct{ method, path, body string }{
	{"POST", "backends/a/drain", `{"within":"1h"}`},
	{"POST", "backends/a/undrain", ""},
	{"POST", "backends/a/off", ""},
	{"POST", "backends/a/weight", `{"weight":2}`},
	{"POST", "shares", `{"shares":{}}`},
	{"POST", "pins/find", `{"address":"203.0.113.9"}`},
	{"POST", "pins/move", `{"key":"k","backend":"a"}`},
	{"POST", "pins/forget", `{"key":"k"}`},
	{"GET", "tunnels", ""},
	{"POST", "tunnels/x/close", ""},
	{"POST", "clients/close", `{"key":"k"}`},
}

func TestAuthorization(t *testing.T) {
	t.Parallel()
	anna := func(r *http.Request) bool {
		user, _, _ := r.BasicAuth()
		return user == "anna"
	}
	basic := func(user string) string {
		req := &http.Request{Header: http.Header{}}
		req.SetBasicAuth(user, "x")
		return req.Header.Get("Authorization")
	}
	for name, tt := range map[string]struct {
		authorize func(*http.Request) bool
		fields    []string
		allowed   bool
		says      string
		steering  bool // what the state says
	}{
		"no Authorize":          {says: "steering is off: the service sets no Authorize in the options of its status page; examples/gateway does with -admin-token-file"},
		"no Authorize, but yes": {fields: []string{"Authorization", basic("anna")}, says: "steering is off"},
		"nobody":                {authorize: anna, says: "refuses you"},
		"somebody else":         {authorize: anna, fields: []string{"Authorization", basic("ben")}, says: "refuses you"},
		"she":                   {authorize: anna, fields: []string{"Authorization", basic("anna")}, allowed: true, steering: true},
		"her own page":          {authorize: everybody, fields: []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://x.test", "Host", "x.test"}, allowed: true, steering: true},
		"a foreign page":        {authorize: everybody, fields: []string{"Sec-Fetch-Site", "cross-site"}, says: "another origin", steering: true},
		"a sister's page":       {authorize: everybody, fields: []string{"Sec-Fetch-Site", "same-site"}, says: "another origin", steering: true},
		"an old browser":        {authorize: everybody, fields: []string{"Origin", "http://evil.test"}, says: "another origin", steering: true},
		"a forged Host":         {authorize: everybody, fields: []string{"Origin", "http://x.test", "Host", "evil.test"}, says: "another origin", steering: true},
		"no origin":             {authorize: everybody, fields: []string{"Origin", "null"}, says: "another origin", steering: true},
		"rebound name": {
			authorize: func(r *http.Request) bool { return r.Host == "ops.test" },
			fields:    []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://evil.test", "Host", "evil.test"}, says: "refuses you",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, "a b", &status.Options{Authorize: tt.authorize}, nil)
			before := g.pool.Get("a").Wish()
			for _, call := range steering {
				if call.method == "GET" && tt.says == "another origin" {
					continue // the browser keeps the answer from the page
				}
				a := g.call(call.method, call.path, call.body, tt.fields...)
				if refused := a.status == 403; refused == tt.allowed {
					t.Errorf("%s: %d %s", call.path, a.status, a.body)
				}
				if !tt.allowed && !strings.Contains(a.body, tt.says) {
					t.Errorf("%s: %s", call.path, a.body)
				}
			}
			if changed := !g.pool.Get("a").Wish().Equal(before); changed != tt.allowed {
				t.Errorf("changed: %t", changed)
			}
			a := g.call("GET", "state", "", tt.fields...)
			if got := strings.Contains(a.body, `"steering":true`); got != tt.steering {
				t.Errorf("steering in %s", a.body)
			}
			if got := strings.Contains(a.body, `"steering_refused":true`); got != (tt.authorize != nil && !tt.steering) {
				t.Errorf("steering_refused in %s", a.body)
			}
		})
	}
}

// No call that steers is a GET, and none works as one.
func TestGetCannotSteer(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", &status.Options{Authorize: everybody}, nil)
	for _, call := range steering {
		if call.method != "POST" {
			continue
		}
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS"} {
			if a := g.call(method, call.path, ""); a.status != 405 || a.header.Get("Allow") != "POST" {
				t.Errorf("%s %s: %d, Allow %q", method, call.path, a.status, a.header.Get("Allow"))
			}
		}
	}
	if w := g.pool.Get("a").Wish(); w.State != balancer.Up {
		t.Errorf("wish %+v", w)
	}
}

// A body that isn't understood changes nothing, and the answer says why.
func TestBodies(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", &status.Options{Authorize: everybody}, nil)
	for name, tt := range map[string]struct {
		path, body, kind string
		want             int
		says             string
	}{
		"misspelt":         {"backends/a/drain", `{"wihtin":"60s"}`, "application/json", 400, `unknown field \"wihtin\"`},
		"a number":         {"backends/a/drain", `{"within":60}`, "application/json", 400, "within can't be a number"},
		"no object":        {"backends/a/drain", `60`, "application/json", 400, "it can't be a number"},
		"no unit":          {"backends/a/drain", `{"within":"60"}`, "application/json", 400, `such as \"60s\"`},
		"negative":         {"backends/a/drain", `{"within":"-60s"}`, "application/json", 400, "within"},
		"no JSON":          {"backends/a/drain", `within=60s`, "application/json", 400, "doesn't fit"},
		"a form":           {"backends/a/drain", `within=60s`, "application/x-www-form-urlencoded", 415, "Content-Type: application/json"},
		"two values":       {"backends/a/drain", `{} {}`, "application/json", 400, "more than one"},
		"too long":         {"backends/a/drain", `{"within":"` + strings.Repeat(" ", 1<<15) + `"}`, "application/json", 413, "16384 bytes"},
		"field for none":   {"backends/a/undrain", `{"within":"60s"}`, "application/json", 400, "unknown field"},
		"no weight":        {"backends/a/weight", `{}`, "application/json", 400, "configured weight"},
		"negative weight":  {"backends/a/weight", `{"weight":-1}`, "application/json", 400, "configured weight"},
		"too heavy":        {"backends/a/weight", `{"weight":1000001}`, "application/json", 400, "1000000"},
		"no shares":        {"shares", `{}`, "application/json", 400, "groups don't matter"},
		"no client at all": {"shares", `{"shares":{"a":0}}`, "application/json", 400, "all shares are 0"},
		"half a share":     {"shares", `{"shares":{"a":0.5}}`, "application/json", 400, "can't be a number"},
		"no such backend":  {"backends/x/drain", `{}`, "application/json", 404, `no backend \"x\"`},
		"two to find":      {"pins/find", `{"sid":"a","key":"b"}`, "application/json", 400, "one of cookie"},
		"nothing to find":  {"pins/find", `{}`, "application/json", 400, "one of cookie"},
		"no address":       {"pins/find", `{"address":"example"}`, "application/json", 400, "203.0.113.9"},
		"move whom":        {"pins/move", `{"backend":"a"}`, "application/json", 400, "key is missing"},
		"move where":       {"pins/move", `{"key":"k","backend":"x"}`, "application/json", 404, `no backend \"x\"`},
		"forget whom":      {"pins/forget", `{}`, "application/json", 400, "key is missing"},
		"close whom":       {"clients/close", `{}`, "application/json", 400, "key is missing"},
		"code of no frame": {"clients/close", `{"key":"k","code":1006}`, "application/json", 400, "1006"},
		"long reason":      {"clients/close", `{"key":"k","reason":"` + strings.Repeat("x", 124) + `"}`, "application/json", 400, "123"},
		"no such tunnel":   {"tunnels/x/close", `{}`, "application/json", 404, `no tunnel \"x\"`},
	} {
		a := g.call("POST", tt.path, tt.body, "Content-Type", tt.kind)
		if a.status != tt.want || !strings.Contains(a.body, tt.says) || !strings.HasPrefix(a.body, `{"error":`) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if b := g.pool.Get("a"); b.Wish().State != balancer.Up || b.Weight() != 1 {
		t.Errorf("wish %+v, weight %d", b.Wish(), b.Weight())
	}
}

// The answer to a decision is the backend as it is then.
func TestDecisions(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	g := newRig(t, "a b", &status.Options{Authorize: everybody, Who: named("alice"), Logger: slog.New(slog.NewTextHandler(&log, nil))}, nil)
	for _, tt := range []struct{ path, body, answer, logged string }{
		{"backends/a/drain", `{"within":"1h"}`, `"wish":"drain"`, `msg=operator who=alice action="drain within 1h" backend=a`},
		{"backends/a/undrain", "", `"state":"up"`, "action=undrain backend=a"},
		{"backends/a/weight", `{"weight":3}`, `"weight":3,"configured_weight":1`, `action="weight 3"`},
		{"backends/a/weight", `{"weight":0}`, `"weight":1,"configured_weight":1`, `action="weight 0"`},
		{"backends/a/off", "", `"state":"down"`, "action=off"},
		{"backends/b/drain", "", `"wish":"drain"`, `action="drain without a deadline" backend=b`},
	} {
		got := g.steer(tt.path, tt.body)
		if !strings.Contains(got, tt.answer) {
			t.Errorf("%s: %s", tt.path, got)
		}
		if warns := strings.Contains(got, `"warning":"no backend is up: `); warns != (tt.path == "backends/b/drain") { // when a is off
			t.Errorf("%s: warning %t: %s", tt.path, warns, got)
		}
		if !strings.Contains(log.String(), tt.logged) {
			t.Errorf("%s: logged %s", tt.path, log.String())
		}
	}
	b := g.backend("a")
	if b.Drain == nil || !b.Drain.Empty || !b.Drain.Until.IsZero() {
		t.Errorf("off: %+v", b.Drain)
	}
}

// Shares can be read and set, and the timeline tells who has set them.
func TestShares(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", &status.Options{Authorize: everybody, Who: named("alice")}, nil)
	b, err := balancer.ParseBackend("c=http://127.0.0.1:1,group=canary")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.pool.Add(b); err != nil {
		t.Fatal(err)
	}
	if got := g.steer("shares", `{"shares":{"":99,"canary":1}}`); !strings.Contains(got, `{"shares":{"":99,"canary":1}}`) {
		t.Errorf("answered %s", got)
	}
	if a := g.call("GET", "state?history=1", ""); !strings.Contains(a.body, `"shares":{"":99,"canary":1}`) || !strings.Contains(a.body, `"group":"canary"`) ||
		!strings.Contains(a.body, `"text":"New clients are shared out: no group 99, canary 1.","who":"alice"`) {
		t.Errorf("state %s", a.body)
	}
	if got := g.steer("shares", `{"shares":{"":9,"canray":1}}`); !strings.Contains(got, `"warning":"no backend is in canray: `) {
		t.Errorf("a typo: answered %s", got)
	}
	g.steer("shares", `{"shares":{}}`)
	if len(g.pool.Shares()) != 0 {
		t.Errorf("shares %v", g.pool.Shares())
	}
}

// How far a drain is: the tunnels at its start, and those that are left.
func TestDrainProgress(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", &status.Options{Authorize: everybody}, nil)
	var conns []*websocket.Conn
	for range 5 {
		conn, _ := dial(t, newClient(t), g.srv.URL)
		conns = append(conns, conn)
	}
	eventually(t, "tunnels", func() bool { return g.backend("a").Tunnels == 5 })
	g.steer("backends/a/drain", `{"within":"1h"}`)
	for _, conn := range conns[:3] {
		conn.Close(websocket.StatusNormalClosure, "")
	}
	eventually(t, "the rest", func() bool { return g.backend("a").Tunnels == 2 })
	d := g.backend("a").Drain
	if d == nil || d.AtStart != 5 || d.Left != 2 || d.Empty || d.Until.Sub(d.Since) != time.Hour {
		t.Errorf("%+v", d)
	}
	g.steer("backends/a/undrain", "")
	if d := g.backend("a").Drain; d != nil {
		t.Errorf("%+v after the drain", d)
	}
}

// A decision made at one gateway holds at the other, and both timelines tell it.
func TestSteeringIsShared(t *testing.T) {
	t.Parallel()
	memory := &bus.Memory{}
	opts := &status.Options{Authorize: everybody, Who: named("alice")}
	one := newRig(t, "a b", opts, &limpet.Options{Bus: memory})
	two := newRig(t, "a b", opts, &limpet.Options{Bus: memory})
	one.run()
	two.run()
	one.steer("backends/a/drain", `{"within":"1h"}`)
	eventually(t, "the drain", func() bool { return two.backend("a").State == "draining" })
	one.steer("backends/a/weight", `{"weight":4}`)
	eventually(t, "the weight", func() bool { return two.backend("a").Weight == 4 })
	two.steer("backends/a/undrain", "")
	eventually(t, "the end of the drain", func() bool { return one.backend("a").State == "up" })
	for _, kind := range []string{"drain", "weight", "serve"} {
		if len(one.texts(kind)) != 1 || len(two.texts(kind)) != 1 {
			t.Errorf("%s: told %q here and %q there", kind, one.texts(kind), two.texts(kind))
		}
	}
	for _, e := range two.state("?history=1").Events {
		if want := e.Kind == "serve"; (e.Who == "alice") != want {
			t.Errorf("%q by %q", e.Text, e.Who)
		}
	}
}

// Secrets of clients, and who steers, are shown to those only who may steer.
func TestReadersSeeNoSecrets(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	g := newRig(t, "a", &status.Options{
		Authorize: func(r *http.Request) bool { return r.Header.Get("Anna") != "" },
		Who:       named("anna@10.1.2.3"), Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}, nil)
	c := newClient(t)
	dial(t, c, g.srv.URL+"/secret-path")
	var tunnel string
	for tunnel == "" {
		for open := range g.gateway.Tunnels() {
			tunnel = open.ID()
		}
	}
	key := keyOf(g)
	for _, call := range []struct{ path, body string }{
		{"backends/a/weight", `{"weight":2}`}, {"clients/close", `{"key":"` + key + `"}`}, {"pins/forget", `{"key":"` + key + `"}`},
	} {
		if a := g.call("POST", call.path, call.body, "Anna", "yes"); a.status != 200 {
			t.Fatalf("%s: %d %s", call.path, a.status, a.body)
		}
	}
	readers := g.call("GET", "state?history=1", "").body
	for _, secret := range []string{key, "anna", "10.1.2.3", "secret-path"} {
		if strings.Contains(readers, secret) {
			t.Errorf("a reader sees %s in %s", secret, readers)
		}
	}
	if hers := g.call("GET", "state?history=1", "", "Anna", "yes").body; !strings.Contains(hers, `"who":"anna@10.1.2.3"`) {
		t.Errorf("she doesn't see who: %s", hers)
	}
	if strings.Contains(log.String(), key) {
		t.Errorf("the log has the key: %s", log.String())
	}
}
