package middleware

import (
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
)

// A Finding is a usual mistake in the set-up that the gateway has noticed. It is logged as
// a warning, once, and [Stats] has it until the gateway ends. A set-up in order has none.
//
//	Code                  what is noticed
//	unknown-session       a node doesn't know a session: Engine.IO's 400 with code 1, from another node than the session's
//	no-cookies            the same, for a client that sends no cookies though the affinity needs them
//	several-workers       sessions are unknown to their own backend right after they were opened, again and again
//	upgrade-dropped       requests that should become WebSockets come without Upgrade
//	engineio-path         sessions open on another path than that of affinity.EngineIO
//	one-address           nearly all clients come from one address, and the affinity is by address
//	forged-pins           many pins, for minutes, weren't made with the secrets of this gateway
//	unknown-backend       the affinity names a backend that the pool doesn't have
//	regular-tunnel-age    tunnels are cut, without a close frame, at the same age
//	cors-twice            an answer has two fields Access-Control-Allow-Origin
//	no-health-checks      nobody runs the pool, which logs the warning
//	bus-not-run           there is a Bus, and nobody runs the gateway
//	server-timeouts       the http.Server has a WriteTimeout or a ReadTimeout
//	untrusted-proxy       a peer in a private network, which isn't trusted, tells of its client
//	remote-addr           a handler in front has put another address into RemoteAddr
type Finding struct {
	Code  string    // of the kind of mistake, see above
	What  string    // was noticed, in a sentence
	Cure  string    // what to do about it
	Since time.Time // when it was noticed first
	Count int64     // how often it was noticed
}

// A symptom is what the doctor can find. Its index is that of the symptom's code.
type symptom int

const (
	unknownSession symptom = iota
	noCookies
	severalWorkers
	upgradeDropped
	engineIOPath
	oneAddress
	forgedPins
	unknownBackend
	regularTunnelAge
	corsTwice
	noHealthChecks
	busNotRun
	serverTimeouts
	untrustedProxy
	remoteAddr
	symptoms
)

var codes = [symptoms]string{
	"unknown-session", "no-cookies", "several-workers", "upgrade-dropped", "engineio-path", "one-address", "forged-pins", "unknown-backend",
	"regular-tunnel-age", "cors-twice", "no-health-checks", "bus-not-run", "server-timeouts", "untrusted-proxy", "remote-addr",
}

// A doctor notices the usual mistakes in a gateway's set-up while it serves. What it looks
// at is cheap for requests in order: no lock that all requests share, nothing allocated.
// What it remembers is bounded.
type doctor struct {
	log   *slog.Logger
	found [symptoms]struct {
		count atomic.Int64
		first atomic.Pointer[Finding]
	}

	paths     []string // of the affinity's EngineIO; nil if there is none
	cookies   bool     // the affinity needs clients that keep cookies
	opened    openings
	upgrades  atomic.Int64 // requests of Engine.IO that may have lost their Upgrade
	forgeries forgeries
	crowd     *crowd // nil unless the affinity is by address
	ages      ages
}

func newDoctor(pool *balancer.Pool, a affinity.Affinity, client ClientIP, log *slog.Logger) *doctor {
	d := &doctor{log: log}
	for _, member := range members(a) {
		d.study(pool, member, client)
	}
	return d
}

// members returns the members of a, and of the chains in it.
func members(a affinity.Affinity) []affinity.Affinity {
	chain, ok := a.(affinity.Chain)
	if !ok {
		return []affinity.Affinity{a}
	}
	var all []affinity.Affinity
	for _, member := range chain {
		all = append(all, members(member)...)
	}
	return all
}

// study learns what a member of the affinity needs of clients and of the pool.
func (d *doctor) study(pool *balancer.Pool, member affinity.Affinity, client ClientIP) {
	key := func(k affinity.Key) {
		switch k.(type) {
		case *affinity.ClientAddr:
			d.crowd = &crowd{client: client}
		case affinity.CookieValue:
			d.cookies = true
		}
	}
	switch a := member.(type) {
	case *affinity.EngineIO:
		d.paths = append(d.paths, a.Path)
	case *affinity.Cookie, *affinity.AppCookie:
		d.cookies = true
	case *affinity.CookieMap:
		d.cookies = true
		d.missing(pool, "CookieMap", a.Backends, a.Default)
	case *affinity.Route:
		d.cookies = d.cookies || a.Param == ""
		d.missing(pool, "Route", a.Backends, "")
	case *affinity.Hash:
		key(a.Key)
	case *affinity.Table:
		key(a.Key)
	}
}

// missing looks for backends that a map names and the pool doesn't have. An empty pool is
// about to be filled.
func (d *doctor) missing(pool *balancer.Pool, where string, backends map[string]string, other string) {
	if pool.Len() == 0 {
		return
	}
	var ids []string
	for _, id := range backends {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if other != "" {
		ids = append(ids, other)
	}
	for _, id := range slices.Compact(ids) {
		if pool.Get(id) == nil && d.first(unknownBackend) {
			d.report(unknownBackend, fmt.Sprintf("the affinity's %s names the backend %q, which the pool doesn't have, so that its clients go to any other", where, id),
				"write the IDs of the pool's backends, exactly as they stand there; if the backend is added to the pool later, all is well", "backend", id)
		}
	}
}

// first counts a symptom, and reports whether it is there for the first time. The caller
// reports it then: its words need not be made for every request.
func (d *doctor) first(s symptom) bool { return d.found[s].count.Add(1) == 1 }

// report keeps a symptom as a finding, and logs it with args.
func (d *doctor) report(s symptom, what, cure string, args ...any) {
	d.keep(s, what, cure)
	d.log.Warn(what, append([]any{"finding", codes[s], "cure", cure}, args...)...)
}

// keep is report for what is logged elsewhere.
func (d *doctor) keep(s symptom, what, cure string) {
	d.found[s].first.Store(&Finding{Code: codes[s], What: what, Cure: cure, Since: time.Now()})
}

// findings returns what was found so far, the latest first.
func (d *doctor) findings() []Finding {
	var all []Finding
	for i := range d.found {
		if f := d.found[i].first.Load(); f != nil {
			finding := *f
			finding.Count = d.found[i].count.Load()
			all = append(all, finding)
		}
	}
	slices.SortFunc(all, func(a, b Finding) int { return b.Since.Compare(a.Since) })
	return all
}
