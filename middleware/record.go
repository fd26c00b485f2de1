package middleware

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/upgrade"
)

// A Source is who gave the answer to a request.
type Source uint8

const (
	SourceNone     Source = iota // nobody: the client left before there was an answer
	SourceBackend                // a backend
	SourceAffinity               // the affinity, as for a session whose node is gone
	SourceGateway                // the gateway, with an error
)

// String returns "none", "backend", "affinity" or "gateway".
func (s Source) String() string {
	return [...]string{"none", "backend", "affinity", "gateway"}[s&3]
}

// A Record tells how a request went. Its fields are the observers' only until the hook
// that got it returns, and must not be changed.
type Record struct {
	ID       string // see Options.RequestID; "" if that isn't set
	Request  *http.Request
	ClientIP netip.Addr // see [ClientIP]; the zero Addr for a client on a Unix socket
	Start    time.Time

	Status int         // of the answer; 101 for a tunnel, 499 if the client left before there was one, 0 if a hook has panicked
	Source Source      // who gave the answer
	Header http.Header // of the answer
	Err    error       // why the gateway answered itself, or why the answer broke off; else nil
	Broken bool        // the answer broke off after its header was sent
	Left   bool        // the client went away before it had all of the answer
	Tunnel bool        // the connection has become a tunnel, which goes on

	Pin     affinity.Pin      // as the affinity has found it
	Key     string            // of the client after this answer, for CloseSession and MovePin
	Outcome string            // what became of the pin, in the words of Options.PinHeader; "" if no backend has answered
	Backend *balancer.Backend // that has answered or was tried last, nil if there was none

	// Attempts are those made to get an answer, in order. If Source is SourceBackend,
	// the last one was answered.
	Attempts []Attempt

	// A backend has answered that it doesn't know the request's session, as Engine.IO
	// says it by status 400 and code 1. SessionEnded: the session has ended at its
	// backend, which is usual. UnknownSession: the request has reached a backend that
	// never had the session. [Finding] says what that may come from.
	SessionEnded, UnknownSession bool

	Received, Sent int64 // bytes of the bodies that came from the client and went to it

	// Times since Start: when a backend was picked first, when the header of the answer
	// was there, and when the request ended. The first two are 0 if that didn't happen.
	Picked, FirstByte, Duration time.Duration

	watching []*Observer
	body     *replay
	tunnel   *upgrade.Tunnel
	first    [2]Attempt // the array of Attempts at first, to save an allocation
}

// An Attempt is one attempt to get an answer to a request from a backend.
type Attempt struct {
	Backend *balancer.Backend
	Err     error // nil if the backend has answered
	Again   bool  // the request was sent again after the failure
}

// A TunnelRecord tells how a tunnel went.
type TunnelRecord struct {
	ID       string // of the request that has opened it, see Record.ID
	Backend  *balancer.Backend
	Key      string     // of the client
	ClientIP netip.Addr // of the client
	Path     string     // of the request that has opened it, escaped as in a URL, without the query
	Start    time.Time  // of that request

	// Summary is the tunnel's own account. A [Sticky] knows only its Duration, since
	// the proxy around it carries the tunnel.
	upgrade.Summary
}

// Long reports whether the times of a request say nothing about how fast its backend is,
// but how long the client stays or how long there was nothing to say: it has become a
// tunnel, its answer is a stream of server-sent events (text/event-stream), or it is a long
// poll of Engine.IO, a GET of its polling with a session's ID. That which opens a session
// has no ID, and is answered at once.
func (rec *Record) Long() bool { return rec.Tunnel || isPoll(rec.Request) || isStream(rec.Header) }

func isPoll(r *http.Request) bool {
	q := r.URL.RawQuery
	return r.Method == http.MethodGet && strings.Contains(q, "transport=polling") &&
		(strings.Contains(q, "&sid=") || strings.HasPrefix(q, "sid="))
}

func isStream(answer http.Header) bool {
	const stream = "text/event-stream"
	for _, t := range answer["Content-Type"] {
		if len(t) >= len(stream) && strings.EqualFold(t[:len(stream)], stream) {
			return true
		}
	}
	return false
}

var records = sync.Pool{New: func() any { return new(Record) }}

// record returns the record of a request that begins, or nil if nobody observes. All
// methods of a nil record that note something do nothing.
func (r *router) record(in *http.Request, client ClientIP, id string) *Record {
	list := r.observers.list.Load()
	if list == nil {
		return nil
	}
	rec := records.Get().(*Record)
	*rec = Record{ID: id, Request: in, ClientIP: client.Addr(in), Start: time.Now(), watching: *list}
	rec.Attempts = rec.first[:0]
	return rec
}

func (rec *Record) found(pin affinity.Pin) {
	if rec != nil {
		rec.Pin = pin
	}
}

func (rec *Record) picked() {
	if rec != nil && rec.Picked == 0 {
		rec.Picked = time.Since(rec.Start)
	}
}

// tried notes the end of an attempt at b.
func (rec *Record) tried(b *balancer.Backend, err error, again bool) {
	if rec != nil {
		rec.Backend = b
		rec.Attempts = append(rec.Attempts, Attempt{b, err, again})
	}
}

// answered notes that the header of an answer is there.
func (rec *Record) answered(by Source, status int, header http.Header) {
	if rec != nil {
		rec.Source, rec.Status, rec.Header = by, status, header
		rec.FirstByte = time.Since(rec.Start)
	}
}

// bound notes what became of the pin.
func (rec *Record) bound(outcome, key string) {
	if rec != nil {
		rec.Outcome, rec.Key = outcome, key
	}
}

// sent notes that n bytes of the answer's body went to the client.
func (rec *Record) sent(n int) {
	if rec != nil {
		rec.Sent += int64(n)
	}
}

// broke notes that the answer has broken off.
func (rec *Record) broke(err error) {
	if rec != nil {
		rec.Broken, rec.Err = true, err
		rec.Left = leftBy(err)
	}
}

// refused notes that no backend's answer goes to the client, because of err.
func (rec *Record) refused(err error) {
	if rec == nil {
		return
	}
	rec.Err, rec.Header = err, nil
	if rec.Source, rec.Status = SourceGateway, StatusCode(err); rec.Status == 499 {
		rec.Source, rec.Left = SourceNone, true
	}
}

// report gives the record to the observers, and takes it back. A request whose handler
// panics for another reason than an answer that has broken off has no status.
func (rec *Record) report() {
	if rec == nil {
		return
	}
	defer rec.release() // also if an observer panics: Closed is called for each tunnel
	rec.Duration = time.Since(rec.Start)
	if rec.body != nil {
		rec.Received = rec.body.received()
	}
	if rec.Key == "" {
		rec.Key = rec.Pin.Key
	}
	if n := len(rec.Attempts); n > 0 {
		rec.Attempts[n-1].Again = false // it was to be sent again, but no backend was left, or no time
	}
	for _, o := range rec.watching {
		if o.Request != nil {
			o.Request(rec)
		}
	}
}

// release has the observers told of the tunnel's end, if there is a tunnel, and takes the
// record back.
func (rec *Record) release() {
	if rec.Tunnel && rec.tunnel != nil {
		rec.tunnel.OnClosed(rec.closed())
	}
	*rec = Record{} // an observer that has kept it should notice that
	records.Put(rec)
}

// opened tells the observers of a tunnel that is about to be served.
func (rec *Record) opened(t *upgrade.Tunnel) {
	if rec == nil {
		return
	}
	rec.tunnel = t
	for _, o := range rec.watching {
		if o.Opened != nil {
			o.Opened(rec, t)
		}
	}
}

// closed returns the function to be called when the tunnel has ended.
func (rec *Record) closed() func(upgrade.Summary) {
	watching := rec.watching
	end := &TunnelRecord{ // it lives as long as the tunnel, and must not keep long strings of the request
		ID: rec.ID, Backend: rec.Backend, Key: strings.Clone(rec.Key), ClientIP: rec.ClientIP,
		Path: strings.Clone(rec.Request.URL.EscapedPath()), Start: rec.Start,
	}
	return func(s upgrade.Summary) {
		end.Summary = s
		for _, o := range watching {
			if o.Closed != nil {
				o.Closed(end)
			}
		}
	}
}
