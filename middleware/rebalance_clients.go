package middleware

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/closecode"
	"github.com/limpet-go/limpet/internal/rebalance"
	"github.com/limpet-go/limpet/upgrade"
)

// A mover is a tunnel whose client may be moved.
type mover struct {
	left atomic.Bool // its client is being moved
}

// opened takes note of a tunnel, if its client may be moved. found is its pin as the request
// has brought it.
func (r *rebalancer) opened(t *upgrade.Tunnel, found affinity.Pin) {
	if r != nil && r.gateway.router.mayMove(found) {
		r.add(t)
	}
}

// add takes note of a tunnel whose client may be moved.
func (r *rebalancer) add(t *upgrade.Tunnel) {
	if r == nil {
		return
	}
	r.tunnels.Store(t, &mover{})
	t.OnClosed(func(upgrade.Summary) { r.tunnels.Delete(t) })
}

// mayMove reports whether rebalancing may move a client with this pin.
func (r *router) mayMove(found affinity.Pin) bool {
	m, ok := r.affinity.(affinity.Mover)
	return ok && m.MayMove(found)
}

// homed are the long-lived clients of one backend at this replica.
type homed struct {
	clients int64      // tunnels and sessions that poll, and clients that are on their way
	mayMove int64      // of these, those that may be moved, and weren't lately
	movable []*leaving // the same, if they were asked for
}

// A leaving is a client that may leave its backend.
type leaving struct {
	key    string
	tunnel *upgrade.Tunnel // nil for a session that polls
	mover  *mover
	from   string
	to     string        // once it is chosen
	move   *move         // nil without a key
	after  time.Duration // until its turn
}

// census counts the clients of each backend. With list it also lists those that may be moved.
func (r *rebalancer) census(list bool) map[string]*homed {
	g := r.gateway
	all := make(map[string]*homed)
	at := func(id string) *homed {
		h := all[id]
		if h == nil {
			h = &homed{}
			all[id] = h
		}
		return h
	}
	add := func(h *homed, l leaving) {
		h.mayMove++
		if list {
			h.movable = append(h.movable, &l)
		}
	}
	for t := range g.upgrade.Tunnels() {
		h := at(t.Group())
		v, _ := r.tunnels.Load(t)
		m, may := v.(*mover)
		if may && m.left.Load() {
			continue
		}
		h.clients++
		if key := t.Key(); may && g.router.moves.of(key) == nil {
			add(h, leaving{key: key, tunnel: t, mover: m, from: t.Group()})
		}
	}
	g.polls.each(func(p *poll) bool {
		if p.told || p.out.Method != http.MethodGet || !isPoll(p.out) {
			return true
		}
		h := at(p.pin.Backend)
		h.clients++
		if g.router.mayMove(p.pin) && g.router.moves.of(p.pin.Key) == nil {
			add(h, leaving{key: p.pin.Key, from: p.pin.Backend})
		}
		return true
	})
	for id, n := range r.arrivals.count() {
		h := at(id)
		h.clients = max(0, h.clients+int64(n))
	}
	return all
}

// choose returns the clients that make these moves. Which of a backend's clients leave
// follows from their keys and from the run, so that it is not always the same ones. All
// tunnels of a client leave together.
func (r *rebalancer) choose(own map[string]*homed, moves []rebalance.Move) (leave []*leaving) {
	targets := make(map[string][]string) // by the backend that is left
	for _, m := range moves {
		targets[m.From] = append(targets[m.From], m.To)
	}
	for from, to := range targets {
		clients := own[from].movable
		slices.SortFunc(clients, func(a, b *leaving) int { return cmp.Compare(r.turn(a), r.turn(b)) })
		at := 0
		for i, l := range clients {
			again := i > 0 && l.key != "" && l.key == clients[i-1].key
			switch {
			case again:
				l.to = clients[i-1].to
			case at >= len(to):
				l.to = ""
			default:
				l.to = to[at]
			}
			if l.to == "" {
				break
			}
			at++
			if l.mover != nil {
				l.mover.left.Store(true)
			}
			leave = append(leave, l)
		}
	}
	return leave
}

// turn orders the clients in this run. The mutex is held.
func (r *rebalancer) turn(l *leaving) uint64 {
	name := l.key
	if name == "" && l.tunnel != nil {
		name = l.tunnel.ID()
	}
	h := xxhash.Sum64String(name) ^ r.salt
	return h * 0x9e3779b97f4a7c15
}

// leave has a client leave its backend.
func (g *Gateway) leave(l *leaving) {
	if l.tunnel != nil {
		l.tunnel.CloseGracefully(closecode.ServiceRestart, "moved")
		return
	}
	g.scans.schedule(0, g.endLeaving)
}

const (
	// arrivalFor is how long a client that was moved is expected at its new home.
	arrivalFor = 10 * time.Second
	// notesMost is how many moves one message tells.
	notesMost = 5000
)

// arrivals are the clients that were moved and are expected at their new homes. A client that
// is known by its cookie is led there by its move. One that was known by its session only
// comes back as a new client, and can't be recognized: so the next new ones are led there in
// its place. The latter also takes in those clients that don't keep the cookie.
type arrivals struct {
	waiting atomic.Int64 // how many there are, so that most requests need no lock
	mu      sync.Mutex
	all     []*arrival // the oldest first
}

type arrival struct {
	to      string
	move    *move // nil without a key
	byOther bool  // another replica has moved it, and expects it as well
	led     bool  // a new client is on its way in its place
	until   time.Time
}

func (x *arrival) came() bool { return x.move != nil && x.move.came.Load() }

func (a *arrivals) expect(to string, m *move, byOther bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, &arrival{to: to, move: m, byOther: byOther, until: time.Now().Add(arrivalFor)})
	if !byOther {
		a.waiting.Add(1)
	}
}

// tidy forgets the clients that have come or are late. The mutex is held.
func (a *arrivals) tidy() {
	now, own := time.Now(), int64(0)
	a.all = slices.DeleteFunc(a.all, func(x *arrival) bool { return now.After(x.until) || !x.byOther && !x.led && x.came() })
	for _, x := range a.all {
		if !x.byOther && !x.led {
			own++
		}
	}
	a.waiting.Store(own)
}

// count returns how many are expected at each backend. A client that another replica has
// moved, and that has come to this one, counts there until it isn't expected any more. So it
// doesn't count here meanwhile.
func (a *arrivals) count() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tidy()
	n := make(map[string]int)
	for _, x := range a.all {
		switch {
		case !x.byOther:
			n[x.to]++
		case x.came():
			n[x.to]--
		}
	}
	return n
}

// lead returns the backend to which a new client is led in place of one that was moved, and
// that one; nil for none. It is expected until arrived or giveBack is called: the tunnel of the
// new client doesn't count before the backend has answered, and without either of them the
// backend would seem to lack a client.
func (a *arrivals) lead(pool *balancer.Pool) (*balancer.Backend, *arrival) {
	if a.waiting.Load() == 0 {
		return nil, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.all) > 0 && time.Now().After(a.all[0].until) {
		a.tidy()
	}
	for _, x := range a.all {
		if b := pool.Get(x.to); !x.byOther && !x.led && !x.came() && b != nil && b.State() == balancer.Up {
			x.led = true
			a.waiting.Add(-1)
			return b, x
		}
	}
	return nil, nil
}

// arrived is called when the client that was led in place of x has its answer.
func (a *arrivals) arrived(x *arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = slices.DeleteFunc(a.all, func(other *arrival) bool { return other == x })
}

// giveBack is called when the client that was led in place of x goes elsewhere, or gets no answer.
func (a *arrivals) giveBack(x *arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x.led = false
	a.tidy()
}

// led returns the backend to which the client of t is led, if it is a new one that opens
// a tunnel or a session.
func (r *router) led(t *trip) (b *balancer.Backend) {
	if r.arrivals == nil || t.pin.Backend != "" || t.pin.Key != "" || t.move != nil || len(t.tried) > 0 || !opens(t.in) {
		return nil
	}
	b, t.led = r.arrivals.lead(r.pool)
	return b
}

// notLed is called when this attempt doesn't take the client of t to where it was led.
func (r *router) notLed(t *trip) {
	if t.led != nil {
		r.arrivals.giveBack(t.led)
		t.led = nil
	}
}

// opens reports whether the request is likely to begin something long-lived.
func opens(r *http.Request) bool {
	return r.Header["Upgrade"] != nil || strings.Contains(r.URL.RawQuery, "EIO=")
}
