package balancer

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// MaxWeight is the highest weight that a backend can have.
const MaxWeight = 1_000_000

const (
	maxID         = 64
	maxSocketPath = 107 // sockaddr_un of Linux, with a zero at its end
)

// A Backend is one upstream server. Its ID and URL never change: a server that moves is a
// new Backend, with the same ID if its clients are to follow it. A Backend belongs to one
// [Pool] for all its life, and is Up before it is added to that. All methods are safe for
// concurrent use.
type Backend struct {
	id      string
	url     *url.URL
	origin  *url.URL // the scheme and host that requests name: url, or http://localhost for a Unix socket
	network string   // tcp or unix
	addr    string   // to dial: host:port of url, with the scheme's port if it has none, or a path
	seed    uint64   // of its scores in rendezvous hashing

	configured int          // weight
	weight     atomic.Int32 // that counts now: changed with the pool's mutex held, before the snapshot for which it counts is published

	state    atomic.Int32
	health   atomic.Int32
	inFlight atomic.Int64
	answered atomic.Int64          // when it answered a request last, in Unix nanoseconds
	wish     atomic.Pointer[Wish]  // the operator's, nil if there never was one
	drain    atomic.Pointer[drain] // the operator's, nil if there is none
	life     atomic.Pointer[life]
	verdict  atomic.Pointer[Status]  // state and what it was derived from; without the check
	checked  atomic.Pointer[checked] // the last check, nil if there was none

	gone   context.Context // ends when the backend is removed from its pool, and ends all lives with it
	remove context.CancelCauseFunc

	pool    atomic.Pointer[Pool] // that it belongs to, or did
	alarm   chan struct{}        // asks the goroutine that checks it for a check at once
	refused atomic.Bool          // a request's dial was refused since the last check

	// Guarded by the mutex of its pool:
	off        bool   // the operator put it Down, or its drain has ended
	offWhy     string // why off is set, or drain, in words
	sickWhy    string // why health isn't Well
	emptyTold  bool   // since the wish was made: see Change.Empty
	stopChecks context.CancelFunc

	vitals vitals // used only by the goroutine that checks it
}

// NewBackend returns a backend for the server at rawURL. That is http://host[:port] or
// https://host[:port] and nothing more, or unix:///path with the absolute path of a Unix
// socket on which the server speaks HTTP. Requests to the latter name the host localhost
// if they name no other.
//
// The ID has 1 to 64 of the characters A-Z a-z 0-9 . _ : -. Pins, logs and metrics use
// it, and it must be the same on every replica of the gateway. The weight, at most
// [MaxWeight], is the backend's share of new clients in proportion to the weights of the
// others; 0 means 1. [Pool.SetWeight] changes it later.
func NewBackend(id, rawURL string, weight int) (*Backend, error) {
	if !validID(id) {
		return nil, fmt.Errorf("balancer: backend ID %q: want 1 to %d of A-Z a-z 0-9 . _ : -", id, maxID)
	}
	if err := validWeight(id, weight); err != nil {
		return nil, err
	}
	b := &Backend{
		id:         id,
		configured: max(weight, 1),
		seed:       xxhash.Sum64String(id),
		alarm:      make(chan struct{}, 1),
		vitals:     vitals{alive: streak{on: true}, fine: streak{on: true}},
	}
	b.setWeight(0)
	b.note("", time.Now())
	u, err := url.Parse(rawURL)
	if err != nil || !b.locate(u) {
		// The error doesn't repeat the URL, which may hold a password.
		return nil, fmt.Errorf("balancer: backend %s: want a URL http://host[:port] or https://host[:port], without user, path, query and fragment, "+
			"or unix:///path with a path of at most %d bytes", id, maxSocketPath)
	}
	b.gone, b.remove = context.WithCancelCause(context.Background())
	b.revive()
	return b, nil
}

// ParseBackend returns the backend that a flag or an environment variable
// describes: "ID=URL" or "ID=URL,weight=N", as in "a=http://10.0.0.1:3000,weight=2".
func ParseBackend(spec string) (*Backend, error) {
	id, rest, ok := strings.Cut(spec, "=")
	rawURL, option, more := strings.Cut(rest, ",")
	weight := 0
	if ok && more {
		n, found := strings.CutPrefix(option, "weight=")
		var err error
		weight, err = strconv.Atoi(n)
		ok = found && err == nil
	}
	if !ok {
		return nil, fmt.Errorf("balancer: backend %q: want ID=URL or ID=URL,weight=N", id)
	}
	return NewBackend(id, rawURL, weight)
}

// ID returns the backend's name.
func (b *Backend) ID() string { return b.id }

// URL returns the backend's address: a scheme and a host, or the scheme unix and a path.
// It is shared, and callers must not change it.
func (b *Backend) URL() *url.URL { return b.url }

// Weight returns the weight that counts now, at least 1: that of the operator's [Wish], or
// the configured one. It costs one atomic load.
func (b *Backend) Weight() int { return int(b.weight.Load()) }

// ConfiguredWeight returns the weight that NewBackend was given, at least 1.
func (b *Backend) ConfiguredWeight() int { return b.configured }

// setWeight sets the weight that counts, which is the configured one if weight is 0.
func (b *Backend) setWeight(weight int) {
	if weight == 0 {
		weight = b.configured
	}
	b.weight.Store(int32(weight))
}

func validWeight(id string, weight int) error {
	if weight < 0 || weight > MaxWeight {
		return fmt.Errorf("balancer: backend %s: weight %d is not within 0 and %d", id, weight, MaxWeight)
	}
	return nil
}

// State returns which clients the backend takes now. It costs one atomic load.
func (b *Backend) State() State { return State(b.state.Load()) }

// Health returns what the checks have found, whatever the operator wants.
func (b *Backend) Health() Health { return Health(b.health.Load()) }

// InFlight returns the number of requests and tunnels that have begun and not ended.
func (b *Backend) InFlight() int64 { return b.inFlight.Load() }

// Begin counts a request or tunnel that begins. The caller must call End when it ends.
func (b *Backend) Begin() { b.inFlight.Add(1) }

// End counts the end of a request or tunnel for which Begin was called.
func (b *Backend) End() {
	if b.inFlight.Add(-1) == 0 {
		b.idle()
	}
}

// load is what pickers compare: the number in flight with one client more, divided by
// the weight.
func (b *Backend) load() float64 {
	return float64(b.inFlight.Load()+1) / float64(b.Weight())
}

func validID(id string) bool {
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == ':', c == '-':
		default:
			return false
		}
	}
	return 1 <= len(id) && len(id) <= maxID
}

// locate sets the backend's address. It reports whether u has one and nothing more.
func (b *Backend) locate(u *url.URL) bool {
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return false
	}
	switch u.Scheme {
	case "unix":
		b.url = &url.URL{Scheme: "unix", Path: u.Path}
		b.origin = &url.URL{Scheme: "http", Host: "localhost"}
		b.network, b.addr = "unix", u.Path
		return u.Host == "" && len(u.Path) > 1 && u.Path[0] == '/' && len(u.Path) <= maxSocketPath && !strings.Contains(u.Path, "\x00")
	case "http", "https":
		port := u.Port()
		switch n, err := strconv.ParseUint(port, 10, 16); {
		case port == "" && u.Scheme == "https":
			port = "443"
		case port == "":
			port = "80"
		case err != nil || n == 0:
			return false
		}
		b.url = &url.URL{Scheme: u.Scheme, Host: u.Host}
		b.origin = b.url
		b.network, b.addr = "tcp", net.JoinHostPort(u.Hostname(), port)
		return u.Hostname() != "" && (u.Path == "" || u.Path == "/")
	}
	return false
}
