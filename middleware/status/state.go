package status

import (
	"math"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// state is the answer of api/state. Its fields are documented in the package's
// documentation.
type state struct {
	Time     moment                   `json:"time"`
	Second   int64                    `json:"second"`
	Gateway  gatewayState             `json:"gateway"`
	Requests int64                    `json:"requests"`
	Tunnels  int64                    `json:"tunnels"`
	Pins     pins                     `json:"pins"`
	Totals   totals                   `json:"totals"`
	Backends []backendState           `json:"backends"`
	Shares   map[string]int           `json:"shares,omitempty"`
	Balance  *limpet.RebalanceStats   `json:"rebalance,omitempty"`
	Replicas []replicaState           `json:"replicas"`
	Parts    []partState              `json:"parts"`
	Findings []findingState           `json:"findings"`
	History  map[string]*historyState `json:"history,omitempty"`
	Events   []event                  `json:"events,omitempty"`

	last int64 // the ID of the last event that it knows of
}

type gatewayState struct {
	Name            string `json:"name"`
	Since           moment `json:"since"`
	Ready           bool   `json:"ready"`
	Steering        bool   `json:"steering"`
	SteeringRefused bool   `json:"steering_refused,omitempty"`
}

type pins struct {
	Hit     int64 `json:"hit"`
	New     int64 `json:"new"`
	Moved   int64 `json:"moved"`
	Expired int64 `json:"expired"`
	Forged  int64 `json:"forged"`
	Unknown int64 `json:"unknown"`
}

type totals struct {
	Requests      int64 `json:"requests"`
	ByBackend     int64 `json:"by_backend"`
	ByGateway     int64 `json:"by_gateway"`
	ByAffinity    int64 `json:"by_affinity"`
	Aborted       int64 `json:"aborted"`
	Retries       int64 `json:"retries"`
	TunnelsOpened int64 `json:"tunnels_opened"`
	TunnelsClosed int64 `json:"tunnels_closed"`
}

type backendState struct {
	ID               string        `json:"id"`
	URL              string        `json:"url"`
	Group            string        `json:"group,omitempty"`
	State            string        `json:"state"`
	Health           string        `json:"health"`
	Wish             string        `json:"wish"`
	Since            moment        `json:"since,omitzero"`
	Why              string        `json:"why,omitempty"`
	Checked          moment        `json:"checked,omitzero"`
	CheckMS          float64       `json:"check_ms,omitempty"`
	CheckError       string        `json:"check_error,omitempty"`
	Weight           int           `json:"weight"`
	ConfiguredWeight int           `json:"configured_weight"`
	Requests         int64         `json:"requests"`
	Tunnels          int64         `json:"tunnels"`
	Totals           backendTotals `json:"totals"`
	Rate             float64       `json:"rate"`
	ErrorRate        float64       `json:"error_rate"`
	P50              *float64      `json:"p50_ms,omitempty"`
	P99              *float64      `json:"p99_ms,omitempty"`
	Last             point         `json:"last"`
	Drain            *drainState   `json:"drain,omitempty"`
}

// A point is one second of a backend's history.
type point struct {
	Rate    int32    `json:"rate"`
	Errors  int32    `json:"errors"`
	P50     *float64 `json:"p50"`
	P99     *float64 `json:"p99"`
	Tunnels int64    `json:"tunnels"` // at its end
}

type backendTotals struct {
	Requests      int64 `json:"requests"`
	Errors        int64 `json:"errors"`
	Retries       int64 `json:"retries"`
	MovedIn       int64 `json:"moved_in"`
	BytesIn       int64 `json:"bytes_in"`
	BytesOut      int64 `json:"bytes_out"`
	TunnelsOpened int64 `json:"tunnels_opened"`
	TunnelsClosed int64 `json:"tunnels_closed"`
}

type drainState struct {
	Since   moment `json:"since"`
	Until   moment `json:"until,omitzero"`
	AtStart int64  `json:"at_start"`
	Left    int64  `json:"left"`
	Empty   bool   `json:"empty"`
}

type replicaState struct {
	ID       string                    `json:"id"`
	Name     string                    `json:"name"`
	Heard    moment                    `json:"heard"`
	Backends map[string]replicaBackend `json:"backends"`
}

type replicaBackend struct {
	State    string `json:"state"`
	Requests int64  `json:"requests"`
	Tunnels  int64  `json:"tunnels"`
}

type partState struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
}

type findingState struct {
	Code  string `json:"code"`
	What  string `json:"what"`
	Cure  string `json:"cure"`
	Since moment `json:"since"`
	Count int64  `json:"count"`
}

type historyState struct {
	Rate    []int32    `json:"rate"`
	Errors  []int32    `json:"errors"`
	P50     []*float64 `json:"p50"`
	P99     []*float64 `json:"p99"`
	Tunnels []int64    `json:"tunnels"`
}

// A moment is a time that is written as RFC 3339 with milliseconds, in UTC.
type moment time.Time

// MarshalJSON implements json.Marshaler.
func (m moment) MarshalJSON() ([]byte, error) {
	return []byte(strconv.Quote(time.Time(m).UTC().Format("2006-01-02T15:04:05.000Z07:00"))), nil
}

// IsZero is for the option omitzero.
func (m moment) IsZero() bool { return time.Time(m).IsZero() }

// state returns how the gateway stands, without what depends on the viewer.
func (h *Handler) state() *state {
	_, last, _ := h.timeline.after(0) // before anything is read that may change with an event
	now, stats := time.Now(), h.gateway.Stats()
	h.notice(stats)
	s := &state{
		last: last, Time: moment(now), Second: h.census.second(now) - 1,
		Gateway:  gatewayState{Name: stats.Name, Since: moment(stats.Since), Ready: h.gateway.Ready() == nil},
		Requests: stats.Requests, Tunnels: stats.Tunnels,
		Backends: make([]backendState, 0, len(stats.Backends)),
		Shares:   h.gateway.Pool().Shares(),
		Balance:  stats.Rebalance,
		Replicas: make([]replicaState, 0, len(stats.Replicas)),
		Parts:    make([]partState, 0, len(h.parts)),
		Findings: make([]findingState, 0, len(stats.Findings)),
	}
	h.census.sum(s)
	for _, b := range stats.Backends {
		s.Backends = append(s.Backends, h.backend(b, now))
	}
	for _, r := range stats.Replicas {
		s.Replicas = append(s.Replicas, replicaOf(r))
	}
	for _, name := range h.parts {
		text, err := h.opts.Parts[name]()
		p := partState{Name: name, OK: err == nil, Text: text}
		if err != nil {
			p.Text = err.Error()
		}
		s.Parts = append(s.Parts, p)
	}
	for _, f := range stats.Findings {
		s.Findings = append(s.Findings, findingState{f.Code, f.What, f.Cure, moment(f.Since), f.Count})
	}
	return s
}

// addHistory adds the last minute and the events.
func (h *Handler) addHistory(s *state) {
	s.History = make(map[string]*historyState, len(s.Backends))
	for _, b := range s.Backends {
		if of := h.gateway.Pool().Get(b.ID); of != nil {
			s.History[b.ID] = h.census.of(of).history(s.Second, b.Last.Tunnels)
		}
	}
	events, _, _ := h.timeline.after(0)
	s.Events = slices.Clone(events)
	slices.Reverse(s.Events)
}

// sum fills in what was counted over all backends. The total is the sum of its parts by
// definition, so that they add up while requests are being counted, too.
func (c *census) sum(s *state) {
	c.mu.Lock() // so that no backend's counts move to rest meanwhile, and are missed or seen twice
	defer c.mu.Unlock()
	c.fold()
	var sum counters
	for _, of := range *c.now.Load() {
		sum.plus(of)
	}
	sum.plus(&c.rest)
	s.Pins = pins{
		Hit: sum.pins[0].Load(), New: sum.pins[1].Load(), Moved: sum.pins[2].Load(),
		Expired: sum.pins[3].Load(), Forged: sum.pins[4].Load(), Unknown: sum.pins[5].Load(),
	}
	s.Totals = totals{
		ByBackend:     sum.requests[limpet.SourceBackend].Load(),
		ByGateway:     sum.requests[limpet.SourceGateway].Load(),
		ByAffinity:    sum.requests[limpet.SourceAffinity].Load(),
		Aborted:       sum.requests[limpet.SourceNone].Load(),
		Retries:       sum.retries.Load(),
		TunnelsOpened: sum.opened.Load(),
		TunnelsClosed: sum.closed.Load(),
	}
	t := &s.Totals
	t.Requests = t.ByBackend + t.ByGateway + t.ByAffinity + t.Aborted
}

// plus adds what other has counted to c.
func (c *counters) plus(other *counters) {
	to, from := c.all(), other.all()
	for i := range from {
		to[i].Add(from[i].Load())
	}
}

// backend returns how one backend stands.
func (h *Handler) backend(stats limpet.BackendStats, now time.Time) backendState {
	b := stats.Backend
	is, of := b.Status(), h.census.of(b)
	s := backendState{
		ID: b.ID(), URL: address(b.URL()), Group: b.Group(), State: is.State.String(), Health: is.Health.String(), Wish: wishWord(is.Wish),
		Since: moment(is.Since), Why: is.Why, Checked: moment(is.Checked), CheckMS: millis(is.CheckTook),
		Weight: b.Weight(), ConfiguredWeight: b.ConfiguredWeight(),
		Requests: stats.Requests, Tunnels: stats.Tunnels,
		Totals: backendTotals{
			Requests: of.requests[limpet.SourceBackend].Load(), Errors: of.errors.Load(), Retries: of.retries.Load(),
			MovedIn: of.movedIn.Load(), BytesIn: of.bytesIn.Load(), BytesOut: of.bytesOut.Load(),
			TunnelsOpened: of.opened.Load(), TunnelsClosed: of.closed.Load(),
		},
		Drain: h.drains.state(b, stats.Tunnels),
	}
	if is.CheckErr != nil {
		s.CheckError = is.CheckErr.Error()
	}
	this := h.census.second(now)
	of.fillRates(&s, this)
	s.Last = of.point(this - 1)
	s.Last.Tunnels = max(0, stats.Tunnels-of.openedIn(this))
	return s
}

// fillRates fills in the rates of the last whole seconds and the quantiles of the last minute.
func (c *counters) fillRates(s *backendState, now int64) {
	var answered, bad, failed int64
	var times histogram
	for number := now - window; number < now; number++ {
		second := c.ring.find(number)
		if second == nil {
			continue
		}
		times.add(second)
		if number >= now-recent {
			answered += int64(second.answered.Load())
			bad += int64(second.bad.Load())
			failed += int64(second.failed.Load())
		}
	}
	s.Rate = round(float64(answered) / float64(max(1, min(recent, now))))
	if all := answered + failed; all > 0 {
		s.ErrorRate = round(float64(bad+failed) / float64(all))
	}
	s.P50, s.P99 = times.millis(0.5), times.millis(0.99)
}

// history returns the minute that ends with the given second, at whose end there were so
// many tunnels.
func (c *counters) history(last, tunnels int64) *historyState {
	s := &historyState{
		Rate: make([]int32, window), Errors: make([]int32, window), Tunnels: make([]int64, window),
		P50: make([]*float64, window), P99: make([]*float64, window),
	}
	for i := window - 1; i >= 0; i-- {
		p := c.point(last)
		s.Rate[i], s.Errors[i], s.P50[i], s.P99[i], s.Tunnels[i] = p.Rate, p.Errors, p.P50, p.P99, tunnels
		tunnels = max(0, tunnels-c.openedIn(last))
		last--
	}
	return s
}

// point returns what happened in one second, without the tunnels.
func (c *counters) point(number int64) point {
	second := c.ring.find(number)
	if second == nil {
		return point{}
	}
	var times histogram
	times.add(second)
	return point{
		Rate: second.answered.Load(), Errors: second.bad.Load() + second.failed.Load(),
		P50: times.millis(0.5), P99: times.millis(0.99),
	}
}

// openedIn returns how many tunnels there were more at the end of a second than at its
// beginning.
func (c *counters) openedIn(number int64) int64 {
	if second := c.ring.find(number); second != nil {
		return int64(second.opened.Load()) - int64(second.closed.Load())
	}
	return 0
}

func (h *histogram) millis(q float64) *float64 {
	d, ok := h.quantile(q)
	if !ok {
		return nil
	}
	ms := millis(d)
	return &ms
}

func millis(d time.Duration) float64 { return round(float64(d) / float64(time.Millisecond)) }

func round(f float64) float64 { return math.Round(f*1000) / 1000 }

func replicaOf(r limpet.ReplicaStats) replicaState {
	s := replicaState{ID: r.ID, Name: r.Name, Heard: moment(r.Heard), Backends: make(map[string]replicaBackend, len(r.Backends))}
	for _, b := range r.Backends {
		s.Backends[b.ID] = replicaBackend{b.State, b.Requests, b.Tunnels}
	}
	return s
}

// address returns where a backend is. Nothing but scheme and host, or the path of a socket,
// is shown, whatever a URL may hold one day.
func address(u *url.URL) string {
	if u.Scheme == "unix" {
		return "unix://" + u.Path
	}
	return u.Scheme + "://" + u.Host
}

// wishWord returns what the operator wants of a backend in one word.
func wishWord(w balancer.Wish) string {
	switch w.State {
	case balancer.Draining:
		return "drain"
	case balancer.Down:
		return "off"
	}
	return "serve"
}
