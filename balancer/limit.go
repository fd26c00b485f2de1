package balancer

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Limit bounds how many requests and how many tunnels each backend of a pool has at the same
// time, from this process. A new client goes to a backend that has room, if there is one.
// When none has, and for a client whose home is full, [Pool.Acquire] waits in the backend's
// queue: first come, first served. A place that becomes free is given to the first in the
// queue.
//
// Clients with a key and without home count as new. So with an affinity that only hashes a
// request may go to another backend than the one before it, if that is full: sessions that
// live on one backend need a pin too, such as a cookie.
type Limit struct {
	// Requests is how many plain requests a backend has at most, and Tunnels how many
	// tunnels. 0 means no limit. A tunnel counts from its handshake to its end, and isn't
	// counted as a request. A request counts until its answer has been copied: a long poll
	// counts all the time that it waits, as with maxconn of HAProxy. Where clients poll,
	// Requests must be above the number of clients that a backend is to have.
	Requests, Tunnels int

	// Queue is how many may wait at a backend for a request's place, and how many for a
	// tunnel's. 0 means as many as there are places; below 0 nobody waits.
	Queue int

	// Wait is how long each of them waits at most. 0 means 5 seconds.
	Wait time.Duration
}

// ErrFull says that the backends which may take the request have no room for it, and that
// the queue is full too, or that the request has waited in it for as long as [Limit] allows.
// A later try may succeed. errors.Is finds ErrNoBackend in it too.
var ErrFull error = fullError{}

type fullError struct{}

func (fullError) Error() string { return "balancer: the backends have no room" }
func (fullError) Unwrap() error { return ErrNoBackend }

// ready returns a copy with the defaults, nil for a limit that limits nothing.
func (l *Limit) ready() (*Limit, error) {
	switch {
	case l == nil || *l == Limit{}:
		return nil, nil
	case l.Requests < 0 || l.Tunnels < 0:
		return nil, fmt.Errorf("balancer: Limit has %d Requests and %d Tunnels: want numbers above 0, or 0 for no limit", l.Requests, l.Tunnels)
	case l.Requests == 0 && l.Tunnels == 0:
		return nil, errors.New("balancer: Limit has a queue and nothing to wait for: set Requests or Tunnels")
	case l.Wait < 0 || unitless(l.Wait):
		return nil, fmt.Errorf("balancer: Limit.Wait is %v: want a time such as 5*time.Second; a number without a unit counts nanoseconds, and Queue: -1 lets nobody wait", l.Wait)
	}
	c := *l
	c.Wait = cmp.Or(c.Wait, 5*time.Second)
	return &c, nil
}

// rooms are the places of a backend in a pool with a Limit.
type rooms struct{ requests, tunnels room }

func newRooms(l *Limit) *rooms {
	s := &rooms{}
	s.requests.most, s.requests.queue = int64(l.Requests), cmp.Or(l.Queue, l.Requests)
	s.tunnels.most, s.tunnels.queue = int64(l.Tunnels), cmp.Or(l.Queue, l.Tunnels)
	return s
}

// room returns the places for requests or for tunnels, nil without a Limit.
func (b *Backend) room(tunnel bool) *room {
	switch {
	case b.rooms == nil:
		return nil
	case tunnel:
		return &b.rooms.tunnels
	}
	return &b.rooms.requests
}

// Queued returns the number of requests and handshakes that wait for room at the backend:
// see [Limit].
func (b *Backend) Queued() int64 {
	if b.rooms == nil {
		return 0
	}
	return b.rooms.requests.queued.Load() + b.rooms.tunnels.queued.Load()
}

// Refused returns how many got [ErrFull] at the backend, since its queue was full or they
// had waited for too long.
func (b *Backend) Refused() int64 {
	if b.rooms == nil {
		return 0
	}
	return b.rooms.requests.refused.Load() + b.rooms.tunnels.refused.Load()
}

// Acquire is [Pool.Pick] and Begin, or BeginTunnel for a tunnel, within the pool's [Limit].
// The caller must call the backend's End, or EndTunnel. Without a Limit it never waits.
//
// A client that waits in vain gets [ErrFull], and one that gives up the error of ctx. When
// the backend goes Down at which it waits, or takes the client no more, another one is picked.
// But if that is the client's home, the error is [ErrLost], so that the caller can judge
// whether the client may move: another call of Acquire picks elsewhere.
func (p *Pool) Acquire(ctx context.Context, r *http.Request, home, key string, tunnel bool, tried ...*Backend) (*Backend, error) {
	if p.limit == nil {
		b, err := p.Pick(r, home, key, tried...)
		if err == nil {
			b.begin(tunnel)
		}
		return b, err
	}
	until := time.Now().Add(p.limit.Wait)
	for {
		s := p.now.Load()
		b, full := p.pick(r, home, key, skip{tried: tried, full: true, tunnel: tunnel})
		switch {
		case b == nil:
			return nil, p.none()
		case b.room(tunnel).enter():
			b.inFlight.Add(1)
			return b, nil
		case !full && b.id != home:
			continue // its last place was taken meanwhile, and another one may have room
		}
		entered, err := b.room(tunnel).wait(ctx, until, b.id == home, func() bool { return p.now.Load() == s })
		switch {
		case err != nil:
			return nil, err
		case entered && b.takes(home, key):
			b.inFlight.Add(1)
			return b, nil
		case entered:
			b.room(tunnel).leave()
		}
		if b.id == home && !b.Keeps(key) {
			return nil, fmt.Errorf("backend %s: %w", b.id, ErrLost)
		}
	}
}

// takes reports whether the backend still takes a client that has waited for room there.
func (b *Backend) takes(home, key string) bool {
	if b.id == home {
		return b.Keeps(key)
	}
	return b.State() == Up || b.State() == Draining && b.drain.Load() == nil
}

// A waiter is somebody in a room's queue.
type waiter struct {
	home    bool          // it waits at its home
	entered bool          // it has got a place; set before done closes
	done    chan struct{} // closed when it has left the queue by leave or wake
}

// A room is the places of one kind at a backend, and the queue for them. While somebody
// waits, all places are taken.
type room struct {
	most  int64 // places; 0: any number
	queue int   // how many may wait

	mu      sync.Mutex
	waiting list.List // of *waiter

	taken, queued, refused atomic.Int64 // changed with the mutex held
}

// full reports whether no place is free.
func (r *room) full() bool {
	return r != nil && r.most > 0 && r.taken.Load() >= r.most
}

// enter takes a place if one is free.
func (r *room) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full() {
		return false
	}
	r.taken.Add(1)
	return true
}

// force takes a place even if none is free.
func (r *room) force() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken.Add(1)
}

// leave gives a place back, to the first that waits.
func (r *room) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken.Add(-1)
	if first := r.waiting.Front(); first != nil && !r.full() {
		r.taken.Add(1)
		r.dismiss(first, true)
	}
}

// dismiss takes a waiter out of the queue. The caller holds the mutex.
func (r *room) dismiss(at *list.Element, entered bool) {
	w := r.waiting.Remove(at).(*waiter)
	r.queued.Add(-1)
	w.entered = entered
	close(w.done)
}

// wake sends those who wait away without a place, so that each looks again where to go. With
// home it sends those too who wait at their home.
func (r *room) wake(home bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for at := r.waiting.Front(); at != nil; {
		next := at.Next()
		if home || !at.Value.(*waiter).home {
			r.dismiss(at, false)
		}
		at = next
	}
}

// wait waits for a place until wake is called, which is no error. Nobody begins to wait when
// current is false: the pool has changed since the backend was picked, so that the call of
// wake for that change may be over.
func (r *room) wait(ctx context.Context, until time.Time, home bool, current func() bool) (entered bool, err error) {
	r.mu.Lock()
	if !current() {
		r.mu.Unlock()
		return false, nil
	}
	if !r.full() {
		r.taken.Add(1)
		r.mu.Unlock()
		return true, nil
	}
	if r.waiting.Len() >= r.queue {
		r.refused.Add(1)
		r.mu.Unlock()
		return false, ErrFull
	}
	w := &waiter{home: home, done: make(chan struct{})}
	at := r.waiting.PushBack(w)
	r.queued.Add(1)
	r.mu.Unlock()

	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-w.done:
		return w.entered, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = ErrFull
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-w.done: // it came at the same moment
		return w.entered, nil
	default:
	}
	r.waiting.Remove(at)
	r.queued.Add(-1)
	if err == ErrFull {
		r.refused.Add(1)
	}
	return false, err
}
