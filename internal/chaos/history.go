//go:build unix

package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// A kind says what a client did.
type kind string

const (
	kindGet     kind = "get"     // a plain GET
	kindPost    kind = "post"    // a plain POST
	kindOpen    kind = "open"    // opens a session, by a poll or a WebSocket handshake
	kindMessage kind = "message" // a numbered message, until it is echoed
	kindPoll    kind = "poll"    // a request of a session that polls: its result only, not its time
	kindEnd     kind = "end"     // a session has ended
	kindStray   kind = "stray"   // an echo that nobody waits for
)

// An op is one thing that a client did, and what came of it.
type op struct {
	client     string
	kind       kind
	n          int           // number of the message or request
	start, end time.Duration // since the history began
	gateway    string        // ID of the gateway that was asked
	status     int           // of the answer; 101 for a WebSocket; 0 without an answer
	backend    string        // that has answered, "" for the gateway's own answer
	boot       string        // of that backend: its ID and how often it was started
	pin        string        // what the answer says of the client's pin
	session    string        // of open, message, poll and end
	home       string        // of poll: the backend that has the session
	seq        int           // of message: how many the session has had at its node
	code       int           // of end: that of the close frame, 0 without one
	err        string        // "" if all went well
	tunnel     bool          // the session is a WebSocket, not polls
}

func (o op) ok() bool { return o.err == "" }

func (o op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%8.3f…%-8.3f %-8s %-7s", o.start.Seconds(), o.end.Seconds(), o.client, o.kind)
	if o.n > 0 {
		fmt.Fprintf(&b, " #%d", o.n)
	}
	fmt.Fprintf(&b, " by %s", o.gateway)
	if o.status > 0 {
		fmt.Fprintf(&b, " %d", o.status)
	}
	for _, v := range []struct{ name, value string }{{"from", o.boot}, {"pin", o.pin}, {"session", o.session}, {"FAILED:", o.err}} {
		if v.value != "" {
			fmt.Fprintf(&b, " %s %s", v.name, v.value)
		}
	}
	if o.seq > 0 {
		fmt.Fprintf(&b, " as its %d.", o.seq)
	}
	if o.kind == kindEnd {
		fmt.Fprintf(&b, " code %d", o.code)
	}
	return b.String()
}

// A fault is something that was done to the cluster. It concerns a backend as all
// gateways see it, a backend as one gateway sees it, or a gateway.
type fault struct {
	kind       faultKind
	backend    string        // "": none
	gateway    string        // "": all
	start, end time.Duration // end: when its cause was taken away; 0: not yet
	note       string
}

func (f fault) String() string {
	end := "…"
	if f.end > 0 {
		end = fmt.Sprintf("%.3f", f.end.Seconds())
	}
	on := cmp.Or(f.backend, f.gateway)
	if f.backend != "" && f.gateway != "" {
		on = f.gateway + " to " + f.backend
	}
	return fmt.Sprintf("%8.3f…%-8s FAULT    %s %s %s", f.start.Seconds(), end, f.kind, on, f.note)
}

// everywhere stands for all backends, and all gateways.
const everywhere = "*"

// overlaps tells whether f, with the time that its effects outlast it, has any moment in
// common with a time.
func (f fault) overlaps(from, to, outlast time.Duration) bool {
	return f.start <= to && (f.end == 0 || from <= f.end+outlast)
}

// at tells whether f concerns a backend, as a gateway sees it. "" stands for any gateway.
func (f fault) at(backend, gateway string) bool {
	if f.backend == everywhere {
		return true
	}
	return f.backend != "" && f.backend == backend && (f.gateway == "" || gateway == "" || f.gateway == gateway)
}

// ofGateway tells whether f concerns a gateway itself.
func (f fault) ofGateway(gateway string) bool { return f.backend == "" && f.gateway == gateway }

// A history is what was done by and to the cluster. Its methods may be called concurrently.
type history struct {
	began time.Time

	mu     sync.Mutex
	ops    []op
	faults []*fault
}

func newHistory() *history { return &history{began: time.Now()} }

// now returns the time since the history began.
func (h *history) now() time.Duration { return time.Since(h.began) }

// add adds an op, whose end is now if it has none.
func (h *history) add(o op) {
	if o.end == 0 {
		o.end = h.now()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
}

// begin adds a fault, which lasts until the function that it returns is called.
func (h *history) begin(k faultKind, backend, gateway, note string) (end func()) {
	f := &fault{kind: k, backend: backend, gateway: gateway, start: h.now(), note: note}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, f)
	return func() {
		now := h.now()
		h.mu.Lock()
		defer h.mu.Unlock()
		f.end = now
	}
}

// snapshot returns the ops by their ends and the faults by their starts.
func (h *history) snapshot() ([]op, []fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ops := slices.Clone(h.ops)
	slices.SortStableFunc(ops, func(a, b op) int { return cmp.Compare(a.end, b.end) })
	faults := make([]fault, len(h.faults))
	for i, f := range h.faults {
		faults[i] = *f
	}
	return ops, faults
}

// around returns the piece of a history that explains what happened to a client in a time:
// its own ops, and the faults, up to two seconds before and one behind.
func around(ops []op, faults []fault, client string, from, to time.Duration) string {
	from, to = from-2*time.Second, to+time.Second
	type line struct {
		at   time.Duration
		text string
	}
	var lines []line
	for _, f := range faults {
		if f.overlaps(from, to, time.Second) {
			lines = append(lines, line{f.start, f.String()})
		}
	}
	for _, o := range ops {
		if o.client == client && o.end >= from && o.start <= to {
			lines = append(lines, line{o.start, o.String()})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(a.at, b.at) })
	const most = 40
	var b strings.Builder
	for i, l := range lines {
		if i == most {
			fmt.Fprintf(&b, "    … and %d more\n", len(lines)-most)
			break
		}
		fmt.Fprintf(&b, "    %s\n", l.text)
	}
	return b.String()
}
