package status

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// object is a JSON object.
type object = map[string]any

// A fixture serves the page with an API that makes everything up, so that the page can be
// tried with backends in any number and condition.
type fixture struct {
	url string

	mu       sync.Mutex
	random   *rand.Rand
	began    time.Time
	steering bool
	silent   bool // new streams are refused and old ones end
	refuse   bool // who steers is refused
	backends []*fake
	shares   map[string]int
	pins     map[string]float64
	totals   map[string]float64
	replicas []object
	parts    []object
	balance  object // of rebalancing; nil for none
	findings []object
	events   []object // newest first
	asked    []string // what was steered: "POST path body"
	sent     chan int // the number of each state that a stream has sent, if somebody reads it
	changed  chan struct{}
}

// fake is a made-up backend.
type fake struct {
	id, state, health, wish, why string
	group                        string
	checkError                   string
	since                        time.Time
	weight                       int
	rate, tunnels, slow          float64
	errors, retries, answers     float64
	drain                        object
	start                        float64
	history                      map[string][]any
}

// newFixture returns a fixture with n backends that are up, and serves it under a prefix.
func newFixture(t testing.TB, n int) *fixture {
	f := &fixture{
		random: rand.New(rand.NewPCG(1, 2)), began: time.Now().Add(-3*time.Hour - 12*time.Minute), steering: true,
		pins: map[string]float64{}, totals: map[string]float64{"by_gateway": 12, "aborted": 57, "tunnels_opened": 48211},
		changed: make(chan struct{}), sent: make(chan int),
	}
	names := []string{"amber", "birch", "coral", "delta", "ember", "fjord", "grove"}
	for i := range n {
		id := fmt.Sprintf("node-%03d", i+1)
		if n <= len(names) {
			id = names[i]
		}
		f.backends = append(f.backends, &fake{
			id: id, state: "up", health: "well", wish: "serve", since: f.began, weight: 1,
			rate: 20 + 180*f.random.Float64(), tunnels: float64(100 + f.random.IntN(500)), slow: 2 + 4*f.random.Float64(), history: map[string][]any{},
		})
	}
	for range 60 {
		f.step()
	}
	site := httptest.NewServer(f)
	t.Cleanup(site.CloseClientConnections)
	t.Cleanup(site.Close)
	t.Cleanup(func() { f.set(func() { f.silent = true }) })
	f.url = site.URL + "/ops/limpet/"
	return f
}

// set changes the fixture and tells the streams.
func (f *fixture) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// step is one second. The caller holds mu or is the only one.
func (f *fixture) step() {
	vary := func(v, by float64) float64 { return max(0, v*(1+by*(2*f.random.Float64()-1))) }
	for _, b := range f.backends {
		rate, errors := vary(b.rate, .25), 0.0
		p50, p99 := any(vary(b.slow, .15)), any(vary(b.slow*6, .4))
		if b.state == "down" {
			rate, p50, p99 = 0, nil, nil
		}
		if b.slow > 100 {
			errors = float64(f.random.IntN(3))
		}
		b.answers, b.errors = b.answers+rate, b.errors+errors
		for k, v := range map[string]any{"rate": rate, "errors": errors, "p50": p50, "p99": p99, "tunnels": b.tunnels} {
			b.history[k] = append(b.history[k], v)
			b.history[k] = b.history[k][max(0, len(b.history[k])-60):]
		}
		f.totals["requests"] += rate
		f.totals["by_backend"] += rate
		f.pins["hit"] += rate * .965
		f.pins["new"] += rate * .03
		f.pins["moved"] += rate * .004
		f.pins["expired"] += rate * .001
	}
	f.totals["retries"] += float64(f.random.IntN(3))
	f.totals["tunnels_opened"] += float64(f.random.IntN(9))
}

func (f *fixture) state(history bool) object {
	now := time.Now()
	at := func(t time.Time) string { return t.Format("2006-01-02T15:04:05.000Z07:00") }
	var tunnels, requests float64
	backends, histories := []object{}, object{}
	for i, b := range f.backends {
		last := object{}
		for k, v := range b.history {
			last[k] = v[len(v)-1]
		}
		o := object{
			"id": b.id, "url": fmt.Sprintf("http://10.0.%d.%d:3000", i/200, i%200+1), "state": b.state, "health": b.health, "wish": b.wish,
			"since": at(b.since), "why": b.why, "checked": at(now.Add(-700 * time.Millisecond)), "check_ms": 1.2,
			"weight": b.weight, "configured_weight": 1, "requests": int(b.rate / 20), "tunnels": int(b.tunnels),
			"totals":     object{"requests": int(b.answers), "errors": int(b.errors), "retries": int(b.retries), "moved_in": 3, "bytes_in": 73400320, "bytes_out": int64(2202009600)},
			"rate":       last["rate"],
			"error_rate": b.errors / max(1, b.answers), "last": last,
		}
		if last["p50"] != nil {
			o["p50_ms"], o["p99_ms"] = last["p50"], last["p99"]
		}
		if b.group != "" {
			o["group"] = b.group
		}
		if b.checkError != "" {
			o["check_error"] = b.checkError
		}
		if b.drain != nil {
			b.drain["left"], b.drain["at_start"] = int(b.tunnels), int(b.start)
			o["drain"] = b.drain
		}
		backends, histories[b.id] = append(backends, o), b.history
		tunnels, requests = tunnels+b.tunnels, requests+b.rate/20
	}
	whole := func(m map[string]float64) object {
		o := object{}
		for _, k := range []string{"hit", "new", "moved", "expired", "forged", "unknown", "requests", "by_backend", "by_gateway", "by_affinity", "aborted", "retries", "tunnels_opened", "tunnels_closed"} {
			o[k] = int(m[k])
		}
		return o
	}
	for _, r := range f.replicas {
		r["heard"] = now.Add(-time.Second)
	}
	s := object{
		"time": at(now), "second": now.Unix() - 1, "gateway": object{"name": "gw1", "since": at(f.began), "ready": true, "steering": f.steering},
		"requests": int(requests), "tunnels": int(tunnels), "pins": whole(f.pins), "totals": whole(f.totals),
		"backends": backends, "replicas": f.replicas, "parts": f.parts, "findings": f.findings,
	}
	if len(f.shares) > 0 {
		s["shares"] = f.shares
	}
	if f.balance != nil {
		s["rebalance"] = f.balance
	}
	if history {
		s["history"], s["events"] = histories, f.events
	}
	return s
}

// happened adds an event that is ago old. The caller holds mu or is the only one.
func (f *fixture) happened(ago time.Duration, kind, backend, text, who string) object {
	e := object{"id": len(f.events) + 1, "time": time.Now().Add(-ago).Format(time.RFC3339Nano), "kind": kind, "backend": backend, "text": text, "who": who}
	f.events = append([]object{e}, f.events...)
	return e
}

func (f *fixture) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, name, _ := strings.Cut(r.URL.Path, "/limpet/")
	api, isAPI := strings.CutPrefix(name, "api/")
	switch {
	case !isAPI:
		page(w, r, name)
	case api == "events":
		f.stream(w, r)
	case api == "state":
		f.mu.Lock()
		defer f.mu.Unlock()
		f.answer(w, http.StatusOK, f.state(r.URL.Query().Get("history") == "1"))
	default:
		f.steer(w, r, api)
	}
}

func (f *fixture) answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func (f *fixture) stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	f.mu.Lock()
	silent := f.silent
	f.mu.Unlock()
	if silent {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for n := 1; ; n++ {
		f.mu.Lock()
		data, _ := json.Marshal(f.state(false))
		changed, silent := f.changed, f.silent
		f.mu.Unlock()
		if silent {
			return
		}
		fmt.Fprintf(w, "event: state\ndata: %s\n\n", data)
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case f.sent <- n:
		default:
		}
		select {
		case <-changed:
		case <-second.C:
			f.mu.Lock()
			f.step()
			f.mu.Unlock()
		case <-r.Context().Done():
			return
		}
	}
}

// steer does what the page asks for, as far as the page shows it.
func (f *fixture) steer(w http.ResponseWriter, r *http.Request, api string) {
	var body json.RawMessage
	json.NewDecoder(r.Body).Decode(&body)
	f.set(func() { f.asked = append(f.asked, strings.TrimSpace(r.Method+" "+api+" "+string(body))) })
	part := strings.Split(api, "/")
	switch {
	case f.refuse:
		f.answer(w, http.StatusForbidden, object{"error": "you may look, but not steer"})
	case part[0] == "backends" && len(part) == 3:
		for _, b := range f.backends {
			if b.id != part[1] {
				continue
			}
			f.set(func() {
				b.since, b.drain = time.Now(), nil
				switch part[2] {
				case "drain":
					b.state, b.wish, b.start = "draining", "drain", b.tunnels
					b.drain = object{"since": time.Now(), "until": time.Now().Add(time.Minute)}
				case "undrain":
					b.state, b.wish = "up", "serve"
				case "off":
					b.state, b.wish, b.tunnels = "down", "off", 0
				case "weight":
					var in struct{ Weight int }
					json.Unmarshal(body, &in)
					b.weight = in.Weight
				}
			})
			f.answer(w, http.StatusOK, object{"id": b.id})
			return
		}
		f.answer(w, http.StatusNotFound, object{"error": "no backend " + part[1]})
	case api == "shares":
		var in struct{ Shares map[string]int }
		json.Unmarshal(body, &in)
		f.set(func() { f.shares = in.Shares })
		f.answer(w, http.StatusOK, object{"shares": in.Shares})
	case api == "pins/find":
		f.answer(w, http.StatusOK, object{"status": "hit", "backend": f.backends[0].id, "goes": f.backends[0].id, "key": "kq3vZ0cJ2m1x", "tunnels": 2})
	case api == "tunnels":
		f.answer(w, http.StatusOK, object{"total": 2, "tunnels": []object{
			{"id": "17", "backend": f.backends[0].id, "key": "kq3vZ0cJ2m1x", "address": "203.0.113.9", "path": "/socket.io/", "began": time.Now().Add(-time.Hour)},
			{"id": "18", "backend": f.backends[0].id, "key": "xx", "address": "2001:db8::17", "path": "/socket.io/", "began": time.Now().Add(-time.Minute)},
		}})
	default:
		f.answer(w, http.StatusOK, object{"text": "Done."})
	}
}

// wanted returns what has been steered so far.
func (f *fixture) wanted() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

// trouble gives the fixture a bad hour: with five backends one is dead, one drains and one
// is slow.
func (f *fixture) trouble() {
	f.set(func() {
		dead, leaving, slow := f.backends[2], f.backends[3], f.backends[len(f.backends)-1]
		dead.state, dead.health, dead.why, dead.since, dead.tunnels, dead.rate = "down", "dead", "check: dial tcp 10.0.0.3:3000: connect: connection refused", time.Now().Add(-134*time.Second), 0, 0
		leaving.state, leaving.wish, leaving.why, leaving.since = "draining", "drain", "operator: drain within 5m0s", time.Now().Add(-170*time.Second)
		leaving.start, leaving.tunnels, leaving.rate = 400, 132, 31
		leaving.drain = object{"since": leaving.since, "until": time.Now().Add(2 * time.Minute)}
		slow.slow, slow.retries = 180, 14
		if len(f.backends) > 50 {
			for i, b := range f.backends[40:] {
				switch {
				case i%31 == 0:
					b.state, b.health, b.why, b.since, b.tunnels, b.rate = "down", "dead", "check: no answer within 2s", time.Now().Add(-time.Duration(i)*time.Second), 0, 0
				case i%23 == 0:
					b.state, b.wish, b.start, b.tunnels = "draining", "drain", 500, float64(b.tunnels/3)
					b.drain = object{"since": time.Now(), "until": time.Now().Add(time.Duration(i) * time.Second)}
				case i%37 == 0:
					b.state, b.health, b.why = "draining", "sick", "check: 503 Service Unavailable"
				case i%41 == 0:
					b.state, b.wish, b.tunnels, b.rate = "down", "off", 0, 0
				}
			}
		}
		f.totals["by_gateway"], f.totals["retries"] = 96, 311
		other := object{}
		for _, b := range f.backends {
			other[b.id] = object{"state": b.state, "requests": 3, "tunnels": int(b.tunnels) / 2}
		}
		third := object{}
		for k, v := range other {
			third[k] = v
		}
		third[slow.id] = object{"state": "draining", "requests": 1, "tunnels": 80}
		f.replicas = []object{
			{"id": "r2", "name": "gw2", "heard": time.Now(), "backends": other},
			{"id": "r3", "name": "gw3", "heard": time.Now(), "backends": third},
		}
		f.balance = object{"running": true, "waits": "a drain of backend delta", "moved": 1234, "left": 0}
		f.parts = []object{
			{"name": "store", "ok": true, "text": "Redis answers in 0.4 ms; 0 errors"},
			{"name": "bus", "ok": true, "text": "connected; 0 messages lost"},
		}
		f.findings = []object{{
			"code": "regular-tunnel-age", "what": "Tunnels of 212 clients ended at an age of 60 s: something in front of the gateway cuts idle connections.",
			"cure": "Raise its idle limit above pingInterval + pingTimeout (45 s by default), for nginx with proxy_read_timeout 120s.", "since": time.Now().Add(-26 * time.Minute), "count": 212,
		}}
		f.happened(3*time.Hour+12*time.Minute, "gateway", "", "gw1 began to serve, with 5 backends", "")
		f.happened(3*time.Hour+11*time.Minute, "replica", "", "gw2 is heard", "")
		f.happened(3*time.Hour+10*time.Minute, "replica", "", "gw3 is heard", "")
		f.happened(74*time.Minute, "weight", f.backends[0].id, "weight 1, was 2", "ops@example.com")
		f.happened(26*time.Minute, "finding", "", "Tunnels end at an age of 60 s: something in front cuts idle connections", "")
		f.happened(171*time.Second, "drain", leaving.id, "is to be drained within 5 min", "ops@example.com")
		f.happened(170*time.Second, "draining", leaving.id, "went from up to draining: 400 tunnels are to leave", "")
		f.happened(134*time.Second, "down", dead.id, "went from up to down: connection refused; 371 tunnels closed with 1012, their clients moved", "")
		f.happened(133*time.Second, "moved", dead.id, "371 clients moved: 128 to amber, 139 to birch, 104 to ember", "")
	})
}

// hostile puts text wherever a gateway can say what somebody else has written.
func (f *fixture) hostile(text string) {
	b := f.backends[0]
	b.id, b.state, b.health, b.why, b.group = text, "down", "dead", text, text
	f.parts = []object{{"name": text, "ok": false, "text": text}}
	f.replicas = []object{{"id": text, "name": text, "heard": time.Now(), "backends": object{text: object{"state": text, "requests": 0, "tunnels": 0}}}}
	f.findings = []object{{"code": text, "what": text, "cure": text, "since": time.Now(), "count": 1}}
	f.happened(0, text, text, text, text)
}
