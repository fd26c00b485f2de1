package middleware

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/limpet-go/limpet/affinity"
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
	d := r.doctor
	if refused && !asksUpgrade(t.in) {
		d.upgrade(t.in, query, ours)
	}
	if !ours {
		return
	}
	session := strings.Contains(query, "sid=")
	if !session && (res.StatusCode == http.StatusOK && strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") && strings.Contains(query, "transport=polling")) {
		d.opens(t, time.Now())
	}
	if res.StatusCode == http.StatusBadRequest && session && !told && saysUnknown(res) {
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
// which the last client with these bits stands.
type openings struct {
	slots [256]atomic.Uint64 // upper bits of the hash, and below them the time in units of openUnit

	mu      sync.Mutex
	infants map[string]*infants // by backend; a few of them in a healthy set-up
}

const (
	openUnit  = 100 * time.Millisecond
	openBits  = 24
	infancy   = 5 * time.Second  // a session that ends within this time has hardly lived
	infantSum = 5                // so many of them, at different times,
	infantFor = 10 * time.Minute // within this time are no accident
)

// infants counts the sessions of a backend that ended right after they were opened.
type infants struct {
	since, last time.Time
	sum         int
}

// clientHash returns a hash of what tells the clients apart.
func clientHash(t *trip) uint64 {
	return xxhash.Sum64String(t.pin.Key) ^ xxhash.Sum64String(t.in.UserAgent())
}

func openTime(now time.Time) uint64 {
	return uint64(now.UnixNano()/int64(openUnit)) & (1<<openBits - 1)
}

// opens notes that the answer opens a session that polls, and where.
func (d *doctor) opens(t *trip, now time.Time) {
	if t.pin.Key != "" {
		h := clientHash(t)
		d.opened.slots[h%256].Store(h>>openBits<<openBits | openTime(now))
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
	h := clientHash(t)
	slot := d.opened.slots[h%256].Load()
	age := time.Duration((openTime(now)-slot)&(1<<openBits-1)) * openUnit
	if t.pin.Key == "" || slot>>openBits != h>>openBits || age > infancy {
		return
	}
	o, id := &d.opened, t.backend.ID()
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.infants[id]
	if n == nil || now.Sub(n.since) > infantFor {
		n = &infants{since: now}
		o.infants[id] = n
	}
	// All sessions of a node end when it restarts: that is one accident.
	if now.Sub(n.last) < time.Second {
		return
	}
	n.last = now
	if n.sum++; n.sum >= infantSum && d.first(severalWorkers) {
		d.report(severalWorkers, fmt.Sprintf("the backend %s doesn't know sessions that it has just opened: several workers seem to share its address, as those of Node's cluster and PM2 do", id),
			"give each worker a port of its own and list each of them as a backend, or let the workers share connections by @socket.io/sticky", "backend", id)
	}
}

// saysUnknown reports whether an answer of status 400 is Engine.IO's for a session that it
// doesn't know. It reads the beginning of the body ahead.
func saysUnknown(res *http.Response) bool {
	const text = "Session ID unknown" // to a handshake; JSON otherwise
	if res.ContentLength > 256 || res.Header.Get("Content-Encoding") != "" {
		return false
	}
	head := make([]byte, 0, 256)
	complete := func() bool { return json.Valid(head) || string(head) == text }
	for len(head) < cap(head) && !complete() {
		n, err := res.Body.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if err != nil {
			res.Body = &readAhead{bytes.NewReader(head), err, res.Body}
			break
		}
	}
	if _, done := res.Body.(*readAhead); !done {
		res.Body = &readAhead{bytes.NewReader(head), nil, res.Body}
	}
	var answer struct{ Code *int }
	return string(head) == text || json.Unmarshal(head, &answer) == nil && answer.Code != nil && *answer.Code == 1
}

// A readAhead is a body of which the beginning was read ahead, and perhaps the end.
type readAhead struct {
	head *bytes.Reader
	err  error // that followed head; nil if nothing followed yet
	io.ReadCloser
}

func (b *readAhead) Read(p []byte) (int, error) {
	switch {
	case b.head.Len() > 0:
		return b.head.Read(p)
	case b.err != nil:
		return 0, b.err
	}
	return b.ReadCloser.Read(p)
}
