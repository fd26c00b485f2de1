package balancer

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options are the options of a [Pool]. The zero value, and a nil *Options, is a good
// default.
type Options struct {
	Picker    Picker       // chooses for clients without home and key; nil: &RoundRobin{}
	Check     *Check       // how Run checks the backends; nil: &Check{}, a TCP connect
	StartDown bool         // a new backend is Down until its first good check, instead of Up until some have failed
	Transport *Transport   // reaches the backends, for checks and for gateways alike; nil: &Transport{}
	Outliers  *Outliers    // passive health: how clients' requests are treated counts too; nil: only checks count
	Logger    *slog.Logger // logs changes of state and warnings; nil: slog.Default()

	// SlowStart is the time over which a backend that joins, or comes back after it was
	// Down, comes to its whole share of the new clients: it begins with a tenth of its
	// weight, and gets one tenth more each tenth of the time. A process that has just
	// started has empty caches and cold code, and all new clients at once would be too
	// much for it. 0 means that it gets its share at once.
	//
	// Only the pickers of this package take it into account, for clients without home and
	// key. Clients with a home stay there, and keys are placed by the whole weight: replicas
	// that don't see the backend come back at the same moment would disagree otherwise.
	SlowStart time.Duration

	// Limit bounds how many requests and tunnels each backend has. nil means no limit.
	Limit *Limit

	// HashBound bounds how much more than the others a backend gets of the clients that
	// have a key and no home, as all clients of an affinity.Hash do: a few keys that most
	// clients share, such as the address of a large office, may otherwise overload one
	// backend. With 1.25 no backend gets more of them while it has 1.25 times its share, by
	// weight, of the requests and tunnels in flight. They go to the backend that has the
	// next highest score for their key (consistent hashing with bounded loads: Mirrokni,
	// Thorup and Zadimoghaddam, 2016). It is above 1; 0 means no bound.
	//
	// It breaks what hashing is chosen for, as often as a backend is full: replicas don't
	// know of each other's requests and disagree about a key, and requests of one client
	// go to several backends. Sessions that live on one backend need a pin too, such as a
	// cookie. Requests that are picked at the same moment may exceed the bound.
	HashBound float64
}

// A Pool is a set of backends that may change at any time. A change of one backend
// doesn't touch the connections, counters and clients of the others. All methods are safe
// for concurrent use. The embedder runs the health checks:
//
//	go pool.Run(ctx)
//
// If Run isn't called, a warning is logged once, some time after the first Pick.
type Pool struct {
	picker    Picker
	transport *Transport
	check     *Check
	outliers  *Outliers
	startDown bool
	logger    *slog.Logger
	slowStart time.Duration
	hashBound float64
	limit     *Limit // nil for none

	now       atomic.Pointer[snapshot]
	unchecked atomic.Bool  // Run wasn't called, and no warning was logged
	firstPick atomic.Int64 // when Pick was called first while unchecked, in Unix nanoseconds

	pageWarned atomic.Bool // warnOfPage has warned
	hasRun     atomic.Bool // Run was called
	runs       atomic.Bool // Run's context hasn't ended

	turns atomic.Uint64 // of groups that were dealt out: see turn

	mu        sync.Mutex // held to change anything but a backend's counters
	listeners []*func(Change)
	witnesses []*func(*Backend) Signs
	changes   []Change        // for which the listeners haven't been called yet
	notifying bool            // a goroutine is calling the listeners
	running   bool            // Run hasn't returned
	began     time.Time       // when Run was called last
	checking  context.Context // Run's; nil unless Run checks backends that are added
	checks    sync.WaitGroup

	shares         map[string]int // of the groups; never changed in place
	shareListeners []*func()
	former         map[string]string // the groups of removed backends by ID; never changed in place
	formerOrder    []string          // their IDs, in the order in which they were removed
}

// A snapshot is the state of a pool at one moment, for readers without the mutex. It is
// never changed.
type snapshot struct {
	byID map[string]*Backend
	all  []*Backend // in the order added
	up   candidates // and the late ones if most backends delay: see takers
	sick candidates // the others that are Draining only because they are sick

	shares map[string]int    // of the groups
	former map[string]string // the groups of backends that were removed, by ID
}

// NewPool returns a pool of these backends, of which there may be none. Two backends with
// the same ID, a backend of another pool, and a Check or a Transport that makes no sense
// are errors. Two backends with the same URL only cause a warning, since a backend that is
// being renamed has two IDs for a while.
func NewPool(opts *Options, backends ...*Backend) (*Pool, error) {
	if opts == nil {
		opts = &Options{}
	}
	p := &Pool{picker: opts.Picker, transport: opts.Transport, startDown: opts.StartDown, logger: opts.Logger, slowStart: opts.SlowStart, hashBound: opts.HashBound}
	if p.picker == nil {
		p.picker = &RoundRobin{}
	}
	if p.transport == nil {
		p.transport = &Transport{}
	}
	if err := p.transport.Validate(); err != nil {
		return nil, err
	}
	if err := validSlowStart(p.slowStart); err != nil {
		return nil, err
	}
	if err := validHashBound(p.hashBound); err != nil {
		return nil, err
	}
	limit, err := opts.Limit.ready()
	if err != nil {
		return nil, err
	}
	p.limit = limit
	check, err := opts.Check.ready()
	if err != nil {
		return nil, err
	}
	if p.outliers, err = opts.Outliers.ready(); err != nil {
		return nil, err
	}
	check.transport = p.transport
	p.check = check
	p.unchecked.Store(true)
	p.turns.Store(rand.Uint64()) // replicas that start together don't deal out the same turns
	byID := make(map[string]*Backend, len(backends))
	for _, b := range backends {
		if err := p.own(byID, b); err != nil {
			return nil, err
		}
	}
	p.publish(byID, slices.Clone(backends))
	p.warnOfTwins(backends)
	return p, nil
}

// warnOfTwins logs a warning if two backends have the same URL. That is mostly a slip.
func (p *Pool) warnOfTwins(backends []*Backend) {
	ids := make(map[string]string, len(backends))
	for _, b := range backends {
		url := b.url.String()
		if other, ok := ids[url]; ok {
			p.log().Warn("two backends have the same URL: when it fails, both do", "backends", []string{other, b.id}, "url", url)
		}
		ids[url] = b.id
	}
}

// ParsePool returns a pool of the backends that the specs describe, as flags or a variable
// of the environment have them: see [ParseBackend]. Errors are those of ParseBackend and
// [NewPool].
func ParsePool(opts *Options, specs ...string) (*Pool, error) {
	backends := make([]*Backend, len(specs))
	for i, spec := range specs {
		b, err := ParseBackend(spec)
		if err != nil {
			return nil, err
		}
		backends[i] = b
	}
	return NewPool(opts, backends...)
}

// Static is [ParsePool] with default options. It panics instead of returning an error: it
// is meant for literals in code.
func Static(specs ...string) *Pool {
	p, err := ParsePool(nil, specs...)
	if err != nil {
		panic(err)
	}
	return p
}

// own adds b to byID, the backends of this pool, and makes sure that no other pool has
// it.
func (p *Pool) own(byID map[string]*Backend, b *Backend) error {
	switch {
	case b == nil:
		return errors.New("balancer: nil backend")
	case byID[b.id] != nil:
		return fmt.Errorf("balancer: two backends with the ID %s", b.id)
	case !b.pool.CompareAndSwap(nil, p):
		return fmt.Errorf("balancer: backend %s already belongs to a pool, or did", b.id)
	}
	byID[b.id] = b
	if p.limit != nil {
		b.rooms = newRooms(p.limit)
	}
	why := "added"
	if p.startDown {
		b.found, b.foundWhy = Dead, "not checked yet"
		b.diagnose()
		b.state.Store(int32(Down))
		b.life.Load().end(ErrLost)
		b.vitals = vitals{neverWell: true}
		b.start.cold = true
		why = b.sickWhy
	}
	b.note(why, time.Now())
	return nil
}

// Add adds a backend. If Run runs the backend is checked from now on. Errors are those of
// [NewPool].
func (p *Pool) Add(b *Backend) error {
	p.mu.Lock()
	defer p.unlock()
	return p.add(b)
}

// add is Add for a caller that holds the mutex.
func (p *Pool) add(b *Backend) error {
	s := p.now.Load()
	byID := maps.Clone(s.byID)
	if err := p.own(byID, b); err != nil {
		return err
	}
	b.state.Store(int32(Down)) // so that listeners see it come from Down
	b.start.cold = true
	p.publish(byID, append(slices.Clone(s.all), b))
	p.startChecks(b)
	p.settle(&Change{Backend: b, Why: "added", told: true})
	return nil
}

// Remove takes a backend out of the pool, at once and for good: it is Down, its Lost
// closes, and its checks end. It is an error if the pool has no backend with this ID.
func (p *Pool) Remove(id string) error {
	return p.operate(id, func(b *Backend, c *Change) error {
		c.remove("removed")
		s := p.now.Load()
		byID := maps.Clone(s.byID)
		delete(byID, id)
		p.remember(b)
		p.publish(byID, slices.DeleteFunc(slices.Clone(s.all), func(other *Backend) bool { return other == b }))
		return nil
	})
}

// remove ends what goes on at c.Backend, which the caller takes out of the pool with the
// mutex held, and makes c the change that tells of it.
func (c *Change) remove(why string) {
	b := c.Backend
	b.drain.Load().stop()
	b.ejection.end()
	b.off, b.offWhy = true, why
	c.Removed, c.told, c.Why = true, true, why
	if b.stopChecks != nil {
		b.stopChecks()
	}
}

// operate changes a backend as the operator wishes, by calling change with the mutex held.
// If change returns an error it has changed nothing.
func (p *Pool) operate(id string, change func(*Backend, *Change) error) error {
	p.mu.Lock()
	defer p.unlock()
	b := p.Get(id)
	if b == nil {
		return fmt.Errorf("balancer: no backend %q in the pool", id)
	}
	c := &Change{Backend: b, Was: b.Wanted()}
	if err := change(b, c); err != nil {
		return err
	}
	p.settle(c)
	return nil
}

// Transport returns the transport to the pool's backends: see [Options].
func (p *Pool) Transport() *Transport { return p.transport }

// Get returns the backend with this ID, nil if the pool has none.
func (p *Pool) Get(id string) *Backend { return p.now.Load().byID[id] }

// All returns the backends that the pool has now, in the order in which they were added.
func (p *Pool) All() iter.Seq[*Backend] { return slices.Values(p.now.Load().all) }

// Len returns the number of backends, whatever their state.
func (p *Pool) Len() int { return len(p.now.Load().all) }

// publish makes a snapshot of these backends that Pick and other readers use from now on.
// The caller holds the mutex.
func (p *Pool) publish(byID map[string]*Backend, all []*Backend) {
	up, sick := takers(all)
	p.now.Store(&snapshot{
		byID: byID, all: all, up: newCandidates(up, p.shares), sick: newCandidates(sick, p.shares),
		shares: p.shares, former: p.former,
	})
}

func (p *Pool) log() *slog.Logger {
	if p.logger != nil {
		return p.logger
	}
	return slog.Default()
}
