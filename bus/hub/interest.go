package hub

import (
	"context"
	"sync"
	"time"

	"github.com/limpet-go/limpet/bus"
)

// interest keeps the subscription in line with the rooms: Run's goroutine alone
// adds and removes topics, all that have come together since it last did.
type interest struct {
	wake chan struct{} // something is to be done by Run

	mu    sync.Mutex
	next  *round
	ended bool

	tending sync.Mutex // held during a round; guards what follows
	have    map[string]struct{}
	hooks   map[*func(opened, closed Who)]struct{}
}

// round is one change of the subscription.
type round struct {
	keys map[string]struct{}
	done chan struct{}
	err  error // once done
}

// over reports whether the round is done.
func (r *round) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// note puts a room whose first member has come, or whose last has left, into the
// next round.
func (n *interest) note(key string) *round {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == nil {
		n.next = &round{keys: make(map[string]struct{}), done: make(chan struct{})}
		if n.ended {
			n.next.end(ErrClosed)
		}
	}
	n.next.keys[key] = struct{}{}
	n.poke()
	return n.next
}

func (r *round) end(err error) {
	r.err = err
	close(r.done)
}

// poke wakes Run.
func (n *interest) poke() {
	select {
	case n.wake <- struct{}{}:
	default: // it is to wake up anyway
	}
}

// close ends the last round, and all that would come.
func (n *interest) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.ended && n.next != nil {
		n.next.end(ErrClosed)
	}
	n.ended = true
}

// tend does what Run was woken for.
func (h *Hub) tend(ctx context.Context, sub bus.Subscription) {
	if h.nodes.greeting() {
		h.tell(ctx, kindHello)
	}
	h.tellNodes()

	n := &h.interest
	n.tending.Lock()
	defer n.tending.Unlock()
	n.mu.Lock()
	r := n.next
	n.next = nil
	n.mu.Unlock()
	if r == nil {
		return
	}

	var add, remove []string
	var opened, closed Who
	for key := range r.keys {
		if key == everybody {
			continue // as long as Run runs
		}
		_, have := n.have[key]
		switch want := h.rooms.has(key); {
		case want && !have:
			if n.have == nil {
				n.have = make(map[string]struct{})
			}
			n.have[key] = struct{}{}
			add = append(add, h.topic(key))
			opened.add(key)
		case !want && have:
			delete(n.have, key)
			remove = append(remove, h.topic(key))
			closed.add(key)
		}
	}
	var err error
	if len(add) > 0 {
		err = sub.Add(ctx, add...)
	}
	if len(remove) > 0 {
		if err := sub.Remove(ctx, remove...); err != nil {
			h.opts.Log.Debug("topics without members are still subscribed to", "topics", len(remove), "err", err)
		}
	}
	if len(add)+len(remove) > 0 {
		for f := range n.hooks {
			(*f)(opened, closed)
		}
	}
	if ctx.Err() != nil {
		err = ErrClosed
	}
	r.end(err)
}

// OnRooms has f called with the Rooms and IDs that have got their first member on
// this node, and those that have lost their last; first with all that there are.
// One call comes after the other, and [Member.Join] waits for it: f may subscribe
// elsewhere, but must return soon. stop ends it, and must not be called by f.
func (h *Hub) OnRooms(f func(opened, closed Who)) (stop func()) {
	n := &h.interest
	n.tending.Lock()
	defer n.tending.Unlock()
	if n.hooks == nil {
		n.hooks = make(map[*func(opened, closed Who)]struct{})
	}
	n.hooks[&f] = struct{}{}
	var opened Who
	for key := range n.have {
		opened.add(key)
	}
	if len(n.have) > 0 {
		f(opened, Who{})
	}
	return func() {
		n.tending.Lock()
		defer n.tending.Unlock()
		delete(n.hooks, &f)
	}
}

// await waits for rounds.
func (h *Hub) await(ctx context.Context, rounds []*round) error {
	if len(rounds) > 0 && !h.ran.Load() {
		h.unrun.Do(func() {
			time.AfterFunc(time.Second, func() {
				if !h.ran.Load() {
					h.opts.Log.Warn("members wait for other nodes, but Hub.Run isn't called")
				}
			})
		})
	}
	for _, r := range rounds {
		select {
		case <-r.done:
			if r.err != nil {
				return r.err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
