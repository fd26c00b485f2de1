package balancer

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options are what a [Pool] can be told. The zero value, and a nil *Options, is a
// good default.
type Options struct {
	Picker    Picker       // for clients without home and key; nil: &RoundRobin{}
	Check     *Check       // how Run checks the backends; nil: &Check{}, a TCP connect
	StartDown bool         // a backend is Down until its first good check, instead of Up until it fails some
	Transport *Transport   // reaches the backends, for checks and for gateways alike; nil: &Transport{}
	Logger    *slog.Logger // tells changes of state; nil: slog.Default()
}

// A Pool is a set of backends that changes at runtime. Changing one backend
// leaves the others' connections, counters and clients alone. All methods are
// safe for concurrent use. Whoever makes a pool runs its health checks:
//
//	go pool.Run(ctx)
//
// If nobody does, a warning says so once, some time after the first Pick.
type Pool struct {
	picker    Picker
	transport *Transport
	check     *Check
	startDown bool
	logger    *slog.Logger

	now       atomic.Pointer[snapshot]
	unchecked atomic.Bool  // nobody has called Run, and nobody was warned of that so far
	firstPick atomic.Int64 // when Pick was called first, while idle, in Unix nanoseconds

	mu        sync.Mutex
	listeners []*func(Change)
	changes   []Change // that listeners have not been called for
	notifying bool
	running   bool
	checking  context.Context // nil unless Run takes new backends
	checks    sync.WaitGroup
}

// A snapshot is the pool at one moment. It never changes once it is made.
type snapshot struct {
	byID map[string]*Backend
	all  []*Backend // in the order added
	up   candidates
	sick candidates // draining for no other reason than that they are sick
}

// NewPool returns a pool of these backends. It may start without any. Two
// backends of one ID, a backend of another pool and a Check or a Transport that
// makes no sense are errors. Two backends of one URL are not, as one that is
// renamed has two IDs for a while, but there is a warning.
func NewPool(opts *Options, backends ...*Backend) (*Pool, error) {
	if opts == nil {
		opts = &Options{}
	}
	p := &Pool{picker: opts.Picker, transport: opts.Transport, startDown: opts.StartDown, logger: opts.Logger}
	if p.picker == nil {
		p.picker = &RoundRobin{}
	}
	if p.transport == nil {
		p.transport = &Transport{}
	}
	if err := p.transport.Validate(); err != nil {
		return nil, err
	}
	check, err := opts.Check.ready()
	if err != nil {
		return nil, err
	}
	check.transport = p.transport
	p.check = check
	p.unchecked.Store(true)
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

// warnOfTwins tells of backends at one address: mostly a slip of the pen, but
// one that is being renamed has two IDs for a while.
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

// Static returns a pool of the backends that the specs describe (see
// [ParseBackend]), with default options. It panics when one is wrong: it is
// meant for literals in code.
func Static(specs ...string) *Pool {
	backends := make([]*Backend, len(specs))
	for i, spec := range specs {
		b, err := ParseBackend(spec)
		if err != nil {
			panic(err)
		}
		backends[i] = b
	}
	p, err := NewPool(nil, backends...)
	if err != nil {
		panic(err)
	}
	return p
}

// own makes b one of byID, the backends of this pool.
func (p *Pool) own(byID map[string]*Backend, b *Backend) error {
	switch {
	case b == nil:
		return errors.New("balancer: nil backend")
	case byID[b.id] != nil:
		return fmt.Errorf("balancer: two backends with the ID %s", b.id)
	case !b.owned.CompareAndSwap(false, true):
		return fmt.Errorf("balancer: backend %s already belongs to a pool, or did", b.id)
	}
	byID[b.id] = b
	if p.startDown {
		b.health.Store(int32(Dead))
		b.state.Store(int32(Down))
		b.life.Load().end(ErrLost)
		b.vitals = vitals{neverWell: true}
	}
	return nil
}

// Add adds a backend, and has it checked when Run runs.
func (p *Pool) Add(b *Backend) error {
	p.mu.Lock()
	defer p.unlock()
	s := p.now.Load()
	byID := maps.Clone(s.byID)
	if err := p.own(byID, b); err != nil {
		return err
	}
	b.state.Store(int32(Down)) // which it was for those who watch the pool
	p.publish(byID, append(slices.Clone(s.all), b))
	p.startChecks(b)
	p.settle(&Change{Backend: b, Why: "added"})
	return nil
}

// Remove takes a backend out of the pool, at once and for good: it is Down, its
// Lost closes, its checks end.
func (p *Pool) Remove(id string) error {
	return p.operate(id, "removed", func(b *Backend, c *Change) {
		b.off = true
		c.Removed, c.wish = true, true
		if b.stopChecks != nil {
			b.stopChecks()
		}
		s := p.now.Load()
		byID := maps.Clone(s.byID)
		delete(byID, id)
		p.publish(byID, slices.DeleteFunc(slices.Clone(s.all), func(other *Backend) bool { return other == b }))
	})
}

// Drain lets a backend lose its clients: it takes no new ones, each pinned
// client stays until its [Turn] within this time, and at the end of it the
// backend goes Down. Within 0 sets no deadline: pinned clients stay until they
// leave by themselves. A second Drain starts anew.
func (p *Pool) Drain(id string, within time.Duration) error {
	return p.SetWish(id, Wish{State: Draining, Within: within})
}

// Off puts a backend Down at once, whatever the half rule of [Backend.Lost] says.
func (p *Pool) Off(id string) error { return p.SetWish(id, Wish{State: Down}) }

// Undrain takes back a Drain or an Off: what the backend takes is up to its
// health again.
func (p *Pool) Undrain(id string) error { return p.SetWish(id, Wish{}) }

// operate carries out a wish of the operator's.
func (p *Pool) operate(id, why string, wish func(*Backend, *Change)) error {
	p.mu.Lock()
	defer p.unlock()
	b := p.Get(id)
	if b == nil {
		return fmt.Errorf("balancer: no backend %q in the pool", id)
	}
	b.drain.Load().stop()
	c := &Change{Backend: b, Why: why}
	wish(b, c)
	p.settle(c)
	return nil
}

// Transport returns what reaches the pool's backends: the one of [Options].
func (p *Pool) Transport() *Transport { return p.transport }

// Get returns the backend with this ID, nil if the pool has none.
func (p *Pool) Get(id string) *Backend { return p.now.Load().byID[id] }

// All yields the backends of this moment in the order in which they were added.
func (p *Pool) All() iter.Seq[*Backend] { return slices.Values(p.now.Load().all) }

// Len returns the number of backends, whatever their state.
func (p *Pool) Len() int { return len(p.now.Load().all) }

// publish makes these backends the pool that Pick sees.
func (p *Pool) publish(byID map[string]*Backend, all []*Backend) {
	var up, sick []*Backend
	for _, b := range all {
		switch {
		case b.State() == Up:
			up = append(up, b)
		case b.State() == Draining && b.drain.Load() == nil:
			sick = append(sick, b)
		}
	}
	p.now.Store(&snapshot{byID: byID, all: all, up: newCandidates(up), sick: newCandidates(sick)})
}

func (p *Pool) log() *slog.Logger {
	if p.logger != nil {
		return p.logger
	}
	return slog.Default()
}
