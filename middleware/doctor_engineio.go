package middleware

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/internal/engineio"
	"github.com/limpet-go/limpet/internal/httpfield"
)

// answered looks at a backend's answer for what concerns sessions of Engine.IO. found is the
// pin that was found for the request, and t.pin has the client's key already. told says
// that the affinity has noticed an unknown session itself.
func (r *router) answered(t *trip, res *http.Response, found affinity.Pin, told bool) {
	query := t.in.URL.RawQuery
	refused := res.StatusCode == http.StatusBadRequest || res.StatusCode == http.StatusUpgradeRequired
	ours := query != "" && strings.Contains(query, "EIO=")
	if !refused && !ours {
		return
	}
	if refused && !asksUpgrade(t.in) {
		r.doctor.upgrade(t.in, query, ours)
	}
	if !ours {
		return
	}
	session := strings.Contains(query, "sid=")
	if !session && res.StatusCode == http.StatusOK && strings.Contains(query, "transport=polling") && strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
		r.doctor.opens(t, time.Now())
	}
	if res.StatusCode == http.StatusBadRequest && session && !told && engineio.SaysUnknown(res) {
		r.unknownSession(t, found)
	}
}

// unknownSession notes that t.backend doesn't know the session of the request. found is the
// pin of the affinity that should know it. If the request has come to the session's own
// backend, the session has ended there, which is usual. A pin that has expired was too old
// anyway, and a session that the operator has moved is unknown at the other backend.
func (r *router) unknownSession(t *trip, found affinity.Pin) {
	home := found.Status == affinity.Hit || found.Status == affinity.None && found.Key != ""
	ended := home || found.Status == affinity.Expired || t.move != nil
	if t.rec != nil {
		t.rec.SessionEnded, t.rec.UnknownSession = ended, !ended
	}
	switch {
	case !ended:
		r.doctor.stray(t, found)
	case home && t.move == nil && (found.Backend == "" || found.Backend == t.backend.ID()):
		r.doctor.ended(t, time.Now())
	}
}

// stray finds out why a request has come to a backend that isn't its session's.
func (d *doctor) stray(t *trip, found affinity.Pin) {
	const lost = "a session reached a backend that doesn't know it: stickiness is misconfigured, "
	_, sends := t.in.Header["Cookie"]
	kind := unknownSession
	if d.cookies && found.Status == affinity.None && !sends {
		kind = noCookies
	}
	if !d.first(kind) {
		return
	}
	var why, cure string
	origin := t.in.Header.Get("Origin")
	switch {
	case kind == noCookies && origin != "":
		why = "since the page of another site, from which the client comes, sends no cookies"
		cure = "put an affinity.EngineIO first, which needs none: affinity.Chain{&affinity.EngineIO{Secrets: secrets}, &affinity.Cookie{Secrets: secrets}}; " +
			"or set withCredentials in the client, Access-Control-Allow-Credentials on the nodes, and SameSite=None on the cookie"
	case kind == noCookies:
		why = "since the client keeps no cookies, as clients in Node and native ones don't"
		cure = "put an affinity.EngineIO first, which needs none: affinity.Chain{&affinity.EngineIO{Secrets: secrets}, &affinity.Cookie{Secrets: secrets}}"
	case found.Status == affinity.Forged:
		why = "since its mark was made with another secret"
		cure = "give all replicas of the gateway the same Secrets, and keep them over a restart"
	case found.Status == affinity.Unknown:
		why = "since this gateway doesn't know where it was opened"
		cure = "give all replicas the same affinity, with the same Secrets or, for SIDModeLearn and Table, a common Store such as affinity.Redis; let the requests that open sessions pass through the gateway too"
	default:
		why = "since its client has lost its pin"
		cure = "put an affinity.EngineIO first, which follows the session itself: affinity.Chain{&affinity.EngineIO{Secrets: secrets}, …}"
	}
	d.report(kind, lost+why, cure, "backend", t.backend.ID(), "pin", found.Status.String(), "origin", origin)
}

// upgrade looks for requests that should have become WebSockets. A proxy that isn't told to
// pass Upgrade and Connection on removes them, as they are hop-by-hop, but leaves
// Sec-WebSocket-Key. A node of Engine.IO answers such a request with code 3. One without that
// key may be somebody who tries the URL by hand.
func (d *doctor) upgrade(r *http.Request, query string, engineIO bool) {
	_, sure := r.Header["Sec-Websocket-Key"]
	if !sure && (!engineIO || !strings.Contains(query, "transport=websocket") || d.upgrades.Add(1) < 3) {
		return
	}
	if d.first(upgradeDropped) {
		d.report(upgradeDropped, "requests that should become WebSockets come without Upgrade: a proxy in front drops this field, so that clients go on polling or can't connect",
			"let the proxy pass WebSockets on; in nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";",
			"peer", r.RemoteAddr, "path", r.URL.Path)
	}
}

func asksUpgrade(r *http.Request) bool {
	return len(r.Header["Upgrade"]) > 0 && httpfield.HasToken(r.Header["Connection"], "upgrade")
}

// openings remembers which clients have opened a session lately, to find backends behind
// which several workers share an address: a session is unknown there as soon as the
// connection reaches another worker. It has a slot for some bits of each client's hash, in
// which the last client with these bits stands. If sessions open at the same time, some
// aren't counted.
type openings struct {
	slots [256]atomic.Uint64 // upper bits of the hash, and below them the time in units of openUnit

	mu   sync.Mutex
	sums map[string]*openingSum // by backend
}

const (
	openUnit    = 100 * time.Millisecond
	openBits    = 24
	infancy     = 5 * time.Second // a session that ends within this time has hardly lived
	infantSpan  = 10 * time.Minute
	infantTimes = 5   // if sessions ended so soon at so many different times within infantSpan,
	infantShare = 0.1 // and this share of all that were opened, it is no accident
)

// An openingSum counts what became of the sessions of one backend for some minutes.
type openingSum struct {
	since  time.Time
	opened int
	ended  int       // that were too young for it
	times  int       // seconds in which some of these ended
	last   time.Time // the last one
}

// sum returns the count for a backend. The caller holds the mutex.
func (o *openings) sum(backend string, now time.Time) *openingSum {
	s := o.sums[backend]
	if s == nil || now.Sub(s.since) > infantSpan {
		if len(o.sums) >= 1000 || o.sums == nil {
			o.sums = make(map[string]*openingSum)
		}
		s = &openingSum{since: now}
		o.sums[backend] = s
	}
	return s
}

// clientHash returns a hash of what tells the clients apart.
func clientHash(t *trip) uint64 {
	return xxhash.Sum64String(t.pin.Key) ^ xxhash.Sum64String(t.in.UserAgent())
}

func openTime(now time.Time) uint64 {
	return uint64(now.UnixNano()/int64(openUnit)) & (1<<openBits - 1)
}

// opens notes that the answer opens a session that polls, and looks where.
func (d *doctor) opens(t *trip, now time.Time) {
	if o := &d.opened; t.pin.Key != "" {
		h := clientHash(t)
		o.slots[h%256].Store(h>>openBits<<openBits | openTime(now))
		if o.mu.TryLock() {
			o.sum(t.backend.ID(), now).opened++
			o.mu.Unlock()
		}
	}
	for _, path := range d.paths {
		if strings.HasPrefix(t.in.URL.Path, path) {
			return
		}
	}
	if d.paths != nil && d.first(engineIOPath) {
		dir := t.in.URL.Path[:strings.LastIndexByte(t.in.URL.Path, '/')+1]
		d.report(engineIOPath, fmt.Sprintf("Engine.IO opens sessions under %s, but the EngineIO of the affinity has the Path %q, so that they aren't pinned by it", dir, d.paths[0]),
			fmt.Sprintf("write Path: %q, or leave the field away", dir), "path", t.in.URL.Path)
	}
}

// ended notes that a session has ended at its own backend.
func (d *doctor) ended(t *trip, now time.Time) {
	o, id, h := &d.opened, t.backend.ID(), clientHash(t)
	slot := o.slots[h%256].Load()
	age := time.Duration((openTime(now)-slot)&(1<<openBits-1)) * openUnit
	if t.pin.Key == "" || slot>>openBits != h>>openBits || age > infancy {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.sum(id, now)
	s.ended++
	if now.Sub(s.last) < time.Second {
		return // all sessions of a node end when it restarts: that is one accident
	}
	s.last = now
	if s.times++; s.times >= infantTimes && float64(s.ended) >= infantShare*float64(s.opened) && d.first(severalWorkers) {
		d.report(severalWorkers, fmt.Sprintf("the backend %s doesn't know sessions that it has just opened: several workers seem to share its address, as those of Node's cluster and PM2 do", id),
			"give each worker a port of its own and list each of them as a backend, or let the workers share connections by @socket.io/sticky", "backend", id)
	}
}
