package balancer

import (
	"context"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/limpet-go/limpet/balancer/internal/http1"
)

// MaxWeight is the highest weight that a backend can have.
const MaxWeight = 1_000_000

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
	group   string   // "" for none; set before it belongs to a pool
	rooms   *rooms   // nil without a Limit; set when it comes to belong to a pool

	configured atomic.Int32 // weight: changed with the pool's mutex held
	weight     atomic.Int32 // that counts now: changed with the pool's mutex held, before the snapshot for which it counts is published

	step atomic.Int32 // of its slow start, slowStartSteps if there is none; changed as weight is

	state    atomic.Int32
	health   atomic.Int32
	inFlight atomic.Int64
	answered atomic.Int64          // when it answered a request last, in Unix nanoseconds
	reads    http1.Reads           // of the Transport's connections to it
	heard    atomic.Int64          // what came on other connections, see Heard
	conduct  conduct               // as Observe has it
	wish     atomic.Pointer[Wish]  // the operator's, nil if there never was one
	wanted   atomic.Pointer[Wish]  // what follows from wish and asked, nil if there never was either
	drain    atomic.Pointer[drain] // that is wanted, nil if there is none
	life     atomic.Pointer[life]
	verdict  atomic.Pointer[Status]  // state and what it was derived from; without the check
	checked  atomic.Pointer[checked] // the last check, nil if there was none

	gone   context.Context // ends when the backend is removed from its pool, and ends all lives with it
	remove context.CancelCauseFunc

	begins       pace         // how long it takes until answers begin: see Took
	connects     pace         // how long it takes to connect
	waitsSince   atomic.Int64 // the first reported wait that counts, in Unix nanoseconds: see ReportSlow
	waitsLast    atomic.Int64 // the last report, in Unix nanoseconds
	stalled      atomic.Bool  // picked last; changed with the pool's mutex held
	stalledSince atomic.Int64 // in Unix nanoseconds
	late         atomic.Bool  // it is sick for lateness only; changed with the pool's mutex held

	pool    atomic.Pointer[Pool] // that it belongs to, or did
	alarm   chan struct{}        // asks the goroutine that checks it for a check at once
	refused atomic.Bool          // a request's dial was refused since the last check

	// Guarded by the mutex of its pool:
	asked      *Wish  // of its source, which wants it drained or off; nil: it may serve
	off        bool   // it is wanted Down, or its drain has ended
	offWhy     string // why off is set, or drain, in words
	found      Health // by the checks
	foundWhy   string // why found is as it is
	foundLate  bool   // found is Sick since a check got no answer in time, and no check since then was answered otherwise than well
	ejection   ejection
	sickWhy    string // why health isn't Well: foundWhy, or that of the ejection
	emptyTold  bool   // since the wish was made: see Change.Empty
	stopChecks context.CancelFunc
	start      slowStart
	stalledEnd *time.Timer // ends stalled

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
		return nil, fmt.Errorf("balancer: backend ID%s: want 1 to %d of A-Z a-z 0-9 . _ : -", quoted(id), maxID)
	}
	if err := validWeight(id, weight); err != nil {
		return nil, err
	}
	b := &Backend{
		id:     id,
		seed:   xxhash.Sum64String(id),
		alarm:  make(chan struct{}, 1),
		vitals: vitals{alive: streak{on: true}, fine: streak{on: true}},
	}
	b.configured.Store(int32(max(weight, 1)))
	b.setWeight(0)
	b.step.Store(slowStartSteps)
	b.note("", time.Now())
	if err := b.locate(rawURL); err != nil {
		return nil, fmt.Errorf("balancer: backend %s: its URL %w", id, err)
	}
	b.gone, b.remove = context.WithCancelCause(context.Background())
	b.revive()
	return b, nil
}

// ID returns the backend's name.
func (b *Backend) ID() string { return b.id }

// URL returns the backend's address: a scheme and a host, or the scheme unix and a path.
// It is shared, and callers must not change it.
func (b *Backend) URL() *url.URL { return b.url }

// Weight returns the weight that counts now, at least 1: that of the operator's [Wish], or
// the configured one. It costs one atomic load.
func (b *Backend) Weight() int { return int(b.weight.Load()) }

// ConfiguredWeight returns the weight that NewBackend was given, or that the [Source] of
// the backend has named last, at least 1.
func (b *Backend) ConfiguredWeight() int { return int(b.configured.Load()) }

// setWeight sets the weight that counts, which is the configured one if weight is 0.
func (b *Backend) setWeight(weight int) {
	if weight == 0 {
		weight = b.ConfiguredWeight()
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

// Begin counts a request that begins, whether there is room for it or not: see [Limit]. The
// caller must call End when it ends.
func (b *Backend) Begin() { b.begin(false) }

// End counts the end of a request for which Begin was called.
func (b *Backend) End() { b.end(false) }

// BeginTunnel is Begin for a tunnel, and EndTunnel must be called when it ends. Without a
// [Limit] there is no difference.
func (b *Backend) BeginTunnel() { b.begin(true) }

// EndTunnel counts the end of a tunnel for which BeginTunnel was called.
func (b *Backend) EndTunnel() { b.end(true) }

func (b *Backend) begin(tunnel bool) {
	b.inFlight.Add(1)
	if r := b.room(tunnel); r != nil {
		r.force()
	}
}

func (b *Backend) end(tunnel bool) {
	left := b.inFlight.Add(-1)
	if r := b.room(tunnel); r != nil {
		r.leave() // not before: InFlight would be above the limit for a moment
	}
	if left == 0 {
		b.idle()
	}
}

// load is what pickers compare: the number in flight and waiting for room, with one client
// more, divided by the weight. During a slow start that is smaller.
func (b *Backend) load() float64 {
	return float64(b.inFlight.Load()+b.Queued()+1) / float64(b.startWeight())
}
