package status

import (
	"errors"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// counters count what happened at one backend. A request's path adds to them and to those of
// no other backend, and takes no lock.
type counters struct {
	requests [4]atomic.Int64 // by limpet.Source
	pins     [len(pinWords)]atomic.Int64
	errors   atomic.Int64 // answers with 5xx or that the backend broke off, and attempts that failed
	retries  atomic.Int64 // attempts that failed and were repeated
	movedIn  atomic.Int64 // clients whose home was another backend

	bytesIn, bytesOut atomic.Int64 // from clients and to them
	opened, closed    atomic.Int64 // tunnels

	ring ring
}

// pinWords are the words of limpet.Record.Outcome.
var pinWords = [...]string{"hit", "new", "moved", "expired", "forged", "unknown"}

// A census has the counters of all backends.
//
// The map is replaced when the pool gets or loses a backend. Requests of backends that
// aren't in it, and those of no backend, are counted together in rest: all requests are
// counted somewhere, and the sum over everything is that of all requests.
type census struct {
	pool  *balancer.Pool
	long  func(*limpet.Record) bool // Options.Long
	began time.Time
	now   atomic.Pointer[map[*balancer.Backend]*counters]
	rest  counters

	mu      sync.Mutex // held to replace the map, and for removed
	removed []removal
}

// A removal is a backend that was removed from the pool. A request may still be about to
// add to its counters.
type removal struct {
	*counters
	at time.Time
}

// linger is how long the counters of a removed backend are watched for late additions. An
// addition takes some nanoseconds.
const linger = 10 * time.Second

func newCensus(pool *balancer.Pool, long func(*limpet.Record) bool) *census {
	c := &census{pool: pool, long: long, began: time.Now()}
	c.now.Store(&map[*balancer.Backend]*counters{})
	return c
}

// of returns the counters of b, which may be nil.
func (c *census) of(b *balancer.Backend) *counters {
	if of := (*c.now.Load())[b]; of != nil {
		return of
	}
	if b == nil || c.pool.Get(b.ID()) != b {
		return &c.rest
	}
	return c.add(b)
}

// add returns the counters of a backend that may be new.
func (c *census) add(b *balancer.Backend) *counters {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := *c.now.Load()
	if of := old[b]; of != nil {
		return of
	}
	all := maps.Clone(old)
	of := new(counters)
	all[b] = of
	c.now.Store(&all)
	return of
}

// remove moves what was counted for b to rest.
func (c *census) remove(b *balancer.Backend) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := *c.now.Load()
	of := old[b]
	if of == nil {
		return
	}
	all := maps.Clone(old)
	delete(all, b)
	c.now.Store(&all)
	c.removed = append(c.removed, removal{of, time.Now()})
	c.fold()
}

// fold moves what the counters of removed backends have to rest. c.mu is held.
func (c *census) fold() {
	kept := c.removed[:0]
	for _, r := range c.removed {
		c.rest.absorb(r.counters)
		if time.Since(r.at) < linger {
			kept = append(kept, r)
		}
	}
	clear(c.removed[len(kept):])
	c.removed = kept
}

// second returns the number of the second in which t lies.
func (c *census) second(t time.Time) int64 { return max(int64(t.Sub(c.began)/time.Second), 0) }

// absorb moves what other has counted to c, except for the history.
func (c *counters) absorb(other *counters) {
	to, from := c.all(), other.all()
	for i, n := range from {
		if v := n.Swap(0); v != 0 {
			to[i].Add(v)
		}
	}
}

// all returns all that counts for ever, in an order of its own.
func (c *counters) all() []*atomic.Int64 {
	all := []*atomic.Int64{&c.errors, &c.retries, &c.movedIn, &c.bytesIn, &c.bytesOut, &c.opened, &c.closed}
	for i := range c.requests {
		all = append(all, &c.requests[i])
	}
	for i := range c.pins {
		all = append(all, &c.pins[i])
	}
	return all
}

// request counts a request that has ended, or has become a tunnel. It is called on the
// path of each request: it allocates nothing but one element of a ring in a second, and
// costs some ten atomic additions.
func (c *census) request(rec *limpet.Record) {
	at := c.second(rec.Start.Add(rec.Duration))
	of := c.of(rec.Backend)
	of.requests[rec.Source&3].Add(1)
	add(&of.bytesIn, rec.Received)
	add(&of.bytesOut, rec.Sent)
	for i := range rec.Attempts {
		if a := &rec.Attempts[i]; a.Err != nil && faulty(a.Err) {
			c.of(a.Backend).failed(at, a.Again)
		}
	}
	if rec.Source != limpet.SourceBackend {
		return
	}
	for i, word := range pinWords {
		if word == rec.Outcome {
			of.pins[i].Add(1)
			break
		}
	}
	if rec.Outcome == "moved" {
		of.movedIn.Add(1)
	}
	second := of.ring.at(at)
	second.answered.Add(1)
	if rec.Status >= 500 || rec.Broken && !rec.Left {
		of.errors.Add(1)
		second.bad.Add(1)
	}
	if rec.Tunnel {
		of.opened.Add(1)
		second.opened.Add(1)
	}
	if !c.isLong(rec) {
		second.delays[bucket(rec.FirstByte)].Add(1)
	}
}

// faulty reports whether the error of an attempt is the backend's fault: not if the client has
// left, the request can't be sent, or this gateway shuts down.
func faulty(err error) bool {
	return limpet.StatusCode(err) >= http.StatusBadGateway && !errors.Is(err, upgrade.ErrClosed)
}

// add spares the usual 0 the price of an addition.
func add(to *atomic.Int64, n int64) {
	if n != 0 {
		to.Add(n)
	}
}

// failed counts an attempt that has failed.
func (c *counters) failed(at int64, again bool) {
	c.errors.Add(1)
	c.ring.at(at).failed.Add(1)
	if again {
		c.retries.Add(1)
	}
}

// closed counts a tunnel that has ended.
func (c *census) closed(rec *limpet.TunnelRecord) {
	of := c.of(rec.Backend)
	of.closed.Add(1)
	of.ring.at(c.second(time.Now())).closed.Add(1)
	add(&of.bytesIn, rec.ToBackend)
	add(&of.bytesOut, rec.ToClient)
}

// isLong reports whether the time to the first byte of an answer says nothing about how fast
// its backend is. The histograms of package metrics leave out the same.
func (c *census) isLong(rec *limpet.Record) bool {
	return rec.Long() || rec.Broken || c.long != nil && c.long(rec)
}
