package hub

import (
	"context"
	"sync"
	"time"

	"github.com/limpet-go/limpet/bus"
)

// interest keeps the hub's subscription in line with its rooms: every room that has
// members here has its topic subscribed to.
//
// Only Run's goroutine adds and removes topics, in rounds. A room that gets its first
// member, or loses its last one, is put into the next round. Run takes that round,
// looks which of its rooms have members by now, changes the subscription accordingly,
// and ends the round, for which those wait who have joined a room. So however many
// rooms change while a round takes its time, they are one more round.
type interest struct {
	wake chan struct{} // has a value when Run has something to do

	mu    sync.Mutex
	next  *round // not begun yet; nil if no room has changed
	ended bool   // there is no other round

	tending sync.Mutex          // held during a round; what follows is under it
	have    map[string]struct{} // the keys whose topics are subscribed to
	hooks   map[*func(opened, closed Who)]struct{}
}

// round is one change of the subscription.
type round struct {
	keys map[string]struct{} // of the rooms that may have changed
	done chan struct{}       // closed when the round has ended
	err  error               // may be read once done is closed
}

// over reports whether the round has ended.
func (r *round) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// note puts a room that has got its first member, or has lost its last one, into the
// next round, and returns that round.
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

// poke makes Run look for something to do.
func (n *interest) poke() {
	select {
	case n.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// close ends the round that hasn't begun, and makes note return ended ones from now
// on: nobody waits for a Run that has ended.
func (n *interest) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.ended && n.next != nil {
		n.next.end(ErrClosed)
	}
	n.ended = true
}

// tend does what Run was woken for: it greets or accuses other nodes, calls the hook
// Node, drops the members of nodes that are gone and waits for these no more, and does the
// next round.
func (h *Hub) tend(ctx context.Context, sub bus.Subscription) {
	h.accuse(ctx)
	if h.nodes.greeting() {
		h.hello(ctx)
	}
	h.tellNodes()
	h.dropMembers()
	h.asked.lose(func(id string) bool { return id == h.id || h.nodes.knows(id) })

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
			continue // Run has subscribed to it itself
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
			h.opts.Logger.Debug("topics without members are still subscribed to", "topics", len(remove), "err", err)
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

// OnRooms makes the hub call f when rooms and IDs have got their first member on this
// node (opened), and when they have lost their last one (closed). The Rooms and IDs of
// both name them. If there are any already, f is called with those before OnRooms
// returns.
//
// The calls are made one after the other. [Member.Join] and [Hub.Connect] wait for
// them, so f may subscribe to the rooms elsewhere, but must return soon. After stop has
// returned there are no more calls; f must not call it.
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

// await waits until all rounds have ended, and returns the first error. If nobody has
// called Run it logs that, since they would never end.
func (h *Hub) await(ctx context.Context, rounds []*round) (err error) {
	if len(rounds) > 0 && !h.ran.Load() {
		h.unrun.Do(func() {
			time.AfterFunc(time.Second, func() {
				if !h.ran.Load() {
					h.opts.Logger.Warn("members wait for other nodes, but Hub.Run isn't called")
				}
			})
		})
	}
	for _, r := range rounds {
		select {
		case <-r.done:
			if err == nil {
				err = r.err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return err
}
