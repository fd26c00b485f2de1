package status

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// drains remembers how the backends were when the operator began to drain them, or turned
// them off.
type drains struct {
	mu  sync.Mutex
	all map[*balancer.Backend]drain
}

type drain struct {
	tunnels int64     // at its start
	noticed time.Time // by this machine's clock
	empty   bool      // it was told that the backend is empty
}

func (d *drains) begin(b *balancer.Backend, tunnels int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = make(map[*balancer.Backend]drain)
	}
	d.all[b] = drain{tunnels: tunnels, noticed: time.Now()}
}

func (d *drains) end(b *balancer.Backend) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.all, b)
}

func (d *drains) of(b *balancer.Backend) drain {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all[b]
}

// emptied reports whether b is empty for the first time since its drain began. In a drain
// without a deadline that may happen with each request.
func (d *drains) emptied(b *balancer.Backend) (first bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	of, ok := d.all[b]
	if first = ok && !of.empty; first {
		of.empty = true
		d.all[b] = of
	}
	return first
}

// state returns how far the drain of b is, nil if the operator wants it to serve.
func (d *drains) state(b *balancer.Backend, tunnels int64) *drainState {
	w := b.Wanted()
	if w.State == balancer.Up {
		return nil
	}
	s := &drainState{Since: moment(w.Since), AtStart: max(d.of(b).tunnels, tunnels), Left: tunnels, Empty: empty(b)}
	if w.State == balancer.Draining && w.Within > 0 {
		s.Until = moment(w.Since.Add(w.Within))
	}
	return s
}

// empty reports whether a backend that the operator drains or has turned off may be stopped:
// it keeps nobody any more, and nothing is in flight. A drain without a deadline keeps
// clients for ever, so that only the latter counts.
func empty(b *balancer.Backend) bool {
	w := b.Wanted()
	left := b.State() == balancer.Down || w.State == balancer.Draining && w.Within == 0
	return w.State != balancer.Up && left && b.InFlight() == 0
}

// acts remembers who has just asked for a change of a backend. The pool reports the change
// without saying who.
type acts struct {
	mu  sync.Mutex
	who map[string]act
}

type act struct {
	who string
	at  time.Time
}

// actTime is how long after an act a change may be reported that is taken for its effect.
const actTime = time.Second

func (a *acts) begin(backend, who string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.who == nil {
		a.who = make(map[string]act)
	}
	a.who[backend] = act{who, time.Now()}
}

// take returns who has changed the backend, "" if it wasn't done here.
func (a *acts) take(backend string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	act := a.who[backend]
	delete(a.who, backend)
	if time.Since(act.at) > actTime {
		return ""
	}
	return act.who
}

// allBackends stands in place of a backend's ID for a decision about the shares of groups.
const allBackends = ""

// sharesChanged is called by the pool when the shares of groups have been set.
func (h *Handler) sharesChanged() {
	h.timeline.add(event{
		Time: moment(time.Now()), Kind: "shares", Who: h.acts.take(allBackends),
		Text: "New clients are shared out: " + sharesText(h.gateway.Pool().Shares()) + ".",
	})
}

// sharesText says what share each group gets, for people.
func sharesText(shares map[string]int) string {
	if len(shares) == 0 {
		return "by weight, whatever the group"
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(shares)) {
		parts = append(parts, fmt.Sprintf("%s %d", cmp.Or(name, "no group"), shares[name]))
	}
	return strings.Join(parts, ", ")
}

// changed is called by the pool for each change.
func (h *Handler) changed(c balancer.Change) {
	b := c.Backend
	e := event{Time: moment(c.Time), Backend: b.ID()}
	w := b.Wanted()
	switch {
	case c.Removed:
		h.census.remove(b)
		h.drains.end(b)
		e.Kind, e.Text = "removed", b.ID()+" was removed from the pool. Its clients move."
	case !c.Was.SameState(w):
		e.Kind, e.Who = wishWord(w), h.acts.take(b.ID())
		e.Text = h.wished(c, w)
	case c.Was.Weight != w.Weight:
		e.Kind, e.Who = "weight", h.acts.take(b.ID())
		e.Text = fmt.Sprintf("%s has the weight %d now, of %d configured.", b.ID(), b.Weight(), b.ConfiguredWeight())
	case c.Why == "added":
		e.Kind, e.Text = "added", fmt.Sprintf("%s was added: %s, weight %d, %v.", b.ID(), address(b.URL()), b.Weight(), c.To)
	case c.From != c.To:
		e.Kind, e.Text = c.To.String(), h.turned(c)
	case c.Lost:
		e.Kind = "down"
		e.Text = b.ID() + " is given up: others are back, so that it is not this gateway's network. Its tunnels are told to connect elsewhere."
	}
	if e.Kind != "" {
		h.timeline.add(e)
	}
	if c.Empty && h.drains.emptied(b) {
		h.timeline.add(event{
			Time: moment(c.Time), Kind: "empty", Backend: b.ID(),
			Text: b.ID() + " is empty: it has no request and no tunnel from this gateway any more. " + h.mayStop(w),
		})
	}
	h.timeline.changed()
}

// mayStop says whether an empty backend may be stopped.
func (h *Handler) mayStop(w balancer.Wish) string {
	switch {
	case w.State == balancer.Draining && w.Within == 0:
		return "Its drain has no deadline, so that clients may still come back."
	case len(h.gateway.Stats().Replicas) > 0:
		return "It may be stopped when the other gateways say the same."
	}
	return "It may be stopped."
}

// wished says what the operator has decided.
func (h *Handler) wished(c balancer.Change, w balancer.Wish) string {
	b := c.Backend
	if w.State == balancer.Up {
		h.drains.end(b)
		if c.To != balancer.Up {
			return fmt.Sprintf("%s is to serve again, but it is %v: %s.", b.ID(), c.To, b.Health())
		}
		return b.ID() + " serves again."
	}
	n := h.tunnelsOf(b)
	if w.State == balancer.Down {
		n += h.closing(b)
	}
	h.drains.begin(b, n)
	switch {
	case w.State == balancer.Down:
		return b.ID() + " is turned off, its clients move." + closed(n)
	case w.Within == 0:
		return fmt.Sprintf("%s is drained without a deadline: it takes no new clients, and keeps those that it has. It has %s.", b.ID(), tunnels(n))
	}
	return fmt.Sprintf("%s is drained within %s: its clients leave one by one. It has %s.", b.ID(), duration(w.Within), tunnels(n))
}

// turned says why a backend's state has changed without the operator.
func (h *Handler) turned(c balancer.Change) string {
	id, why := c.Backend.ID(), strings.TrimPrefix(c.Why, "check: ")
	switch {
	case c.To == balancer.Up:
		return id + " is up."
	case c.To == balancer.Draining:
		return fmt.Sprintf("%s is sick: %s. It keeps its clients, and takes new ones only if no other is up.", id, why)
	case c.Why == "end of the drain":
		return fmt.Sprintf("The drain of %s is over: it is down.", id) + closed(h.tunnelsOf(c.Backend)+h.closing(c.Backend))
	case !c.Lost:
		return fmt.Sprintf("%s looks dead: %s. Its tunnels are kept: so many backends look dead at once that it may be the network on this side.", id, why) + h.nobody()
	}
	return fmt.Sprintf("%s is down: %s. Its clients move.", id, why) + closed(h.tunnelsOf(c.Backend)+h.closing(c.Backend)) + h.nobody()
}

// nobody says so if no backend is up.
func (h *Handler) nobody() string {
	if errors.Is(h.gateway.Ready(), balancer.ErrNoBackend) {
		return " No backend is left: clients get 503."
	}
	return ""
}

func tunnels(n int64) string {
	if n == 1 {
		return "1 tunnel"
	}
	return fmt.Sprint(n, " tunnels")
}

// closed says that so many tunnels are closed.
func closed(n int64) string {
	switch n {
	case 0:
		return ""
	case 1:
		return " 1 tunnel is closed."
	}
	return " " + tunnels(n) + " are closed."
}

// duration returns d as people write it: 1h and not 1h0m0s.
func duration(d time.Duration) string {
	text := d.Round(time.Millisecond).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// tunnelsOf returns how many tunnels b has.
func (h *Handler) tunnelsOf(b *balancer.Backend) int64 {
	var n int64
	for t := range h.gateway.Tunnels() {
		if t.Group() == b.ID() {
			n++
		}
	}
	return n
}

// closing returns how many tunnels of b were closed in this second. When the pool reports
// that b is lost, the gateway has begun to close them a moment ago.
func (h *Handler) closing(b *balancer.Backend) int64 {
	if s := h.census.of(b).ring.find(h.census.second(time.Now())); s != nil {
		return int64(s.closed.Load())
	}
	return 0
}

// notice adds events for what nobody reports: replicas that are heard or not heard any more,
// and findings. They get the time at which they happened, although they are noticed only
// when somebody looks.
func (h *Handler) notice(stats limpet.Stats) {
	h.noticeMu.Lock()
	defer h.noticeMu.Unlock()
	heard := make(map[string]limpet.ReplicaStats, len(stats.Replicas))
	for _, r := range stats.Replicas {
		heard[r.ID] = r
		if _, known := h.replicas[r.ID]; !known {
			h.timeline.add(event{Kind: "replica", Text: "The gateway " + r.Name + " is heard over the bus."})
		}
	}
	for id, r := range h.replicas {
		if _, still := heard[id]; !still {
			h.timeline.add(event{Kind: "replica", Text: fmt.Sprintf("The gateway %s is not heard any more, the last time at %s.", r.Name, r.Heard.UTC().Format("15:04:05 UTC"))})
		}
	}
	h.replicas = heard
	for _, f := range stats.Findings {
		if !h.findings[f.Code] {
			h.findings[f.Code] = true
			h.timeline.add(event{Time: moment(f.Since), Kind: "finding", Text: f.What + " " + f.Cure})
		}
	}
	if err := h.gateway.Ready(); (err == nil) != h.ready {
		h.ready = err == nil
		text := "This gateway takes clients."
		if err != nil {
			text = "This gateway takes no new clients: " + strings.TrimPrefix(strings.TrimPrefix(err.Error(), "limpet: "), "balancer: ") + "."
		}
		h.timeline.add(event{Kind: "gateway", Text: text})
	}
}
