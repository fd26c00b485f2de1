package hub

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
)

// MemberOptions say who a new member is. The zero value is a member with a random
// ID that is in no room.
type MemberOptions struct {
	// ID is how others reach the member, on whichever node it is. It is random if
	// empty. Several members may have the same ID, as the browser tabs of one user
	// may: what is sent to an ID reaches all of them.
	ID string
	// Data is returned by [Hub.Members] on all nodes. It must marshal to JSON.
	Data any
	// Rooms are the rooms that the member is in from the start.
	Rooms []string
	// Positions are where the client was in rooms when it was last here, by room, as
	// [Protocol] has told it. If they aren't nil the member speaks Protocol: each
	// message to it begins with a line, and in each room that it enters it gets what it
	// has missed since its position there. The positions of other rooms don't matter:
	// whoever names a room isn't in it for that. [Hub.Handler] sets Positions itself.
	Positions map[string]string
	// Expires is when the member's permission ends, such as that of a token. The member
	// is closed with 1008 (Policy Violation) then, unless [Member.Extend] has given it
	// more time. Zero means never.
	Expires time.Time
}

// The life of a member, in states of its fields ended and writing:
//
//	ended  writing  what it is            what moves it on
//	-----  -------  --------------------  ------------------------------------------
//	false  false    idle, no goroutine    wake: a message, a ping, a hook or the end
//	false  true     write runs            write: the queue and the hooks are done
//	true   true     write runs the rest,  write: the queue and the hooks are done
//	                then closes the Conn
//	true   false    over for good         nothing
//
// The fields below mu change only with mu held. Whoever gives write something to do
// calls wake, with mu still held, which starts write in a goroutine of its own unless
// it runs. So there is one at most, and only it calls the Conn and the hooks, without
// mu. A room's lock is taken with mu held, never the other way round.

// A Member is a connection of this node that is in the hub. All methods may be
// called concurrently.
type Member struct {
	hub    *Hub
	id     string
	key    uint64 // its number among the members of this node if the hub has presence, or 0
	conn   Conn
	ctx    context.Context // ends when conn is closed, or is given up
	cancel context.CancelFunc
	run    func()      // m.write, so that starting it allocates nothing
	late   *time.Timer // gives conn up when a call takes too long; write alone uses it

	mu      sync.Mutex
	keys    map[string]struct{} // of what it is in: rooms, its ID, and everybody
	data    json.RawMessage
	queue   queued
	places  *places // nil unless it speaks Protocol; never changes
	events  []event // hooks that are due
	sweep   int     // the number of events at which to look for those that undo each other
	writing bool    // write runs, or is about to
	ended   bool    // Close was called, or the connection has failed
	code    int     // of the close, once it has ended
	reason  string
	expires *time.Timer // nil if the member's permission doesn't end
}

// Connect makes a connection a member. It waits until messages of other nodes will
// reach the member, or until ctx ends. If the bus is away the connection becomes a
// member all the same, and messages of other nodes reach it once the bus is back.
//
// Connect returns an error if Data doesn't marshal to JSON, or if [Hub.Run] has ended:
// then it wraps [ErrClosed]. After an error conn still belongs to the caller, and
// none of its methods was called.
//
// The hub doesn't read from conn. Whoever does calls [Member.Close] when the
// connection ends.
func (h *Hub) Connect(ctx context.Context, conn Conn, opts MemberOptions) (*Member, error) {
	return h.connect(ctx, context.WithoutCancel(ctx), conn, opts)
}

// connect is Connect for a member whose context is a child of parent.
func (h *Hub) connect(ctx, parent context.Context, conn Conn, opts MemberOptions) (*Member, error) {
	m := &Member{hub: h, id: opts.ID, conn: conn, keys: make(map[string]struct{}, 2+len(opts.Rooms))}
	if m.id == "" {
		m.id = rand.Text()
	}
	if err := m.SetData(opts.Data); err != nil {
		return nil, err
	}
	if opts.Positions != nil {
		m.places = newPlaces(opts.Positions)
	}
	if h.opts.Presence {
		m.key = h.announcer.keys.Add(1)
	}
	m.ctx, m.cancel = context.WithCancel(parent)
	m.run = m.write
	h.mu.RLock()
	if closed := h.closed; closed != nil {
		h.mu.RUnlock()
		m.cancel()
		return nil, fmt.Errorf("hub: connect: %w", closed)
	}
	h.open.Add(1)
	if s, ok := conn.(*socket); ok && s.alive != nil {
		m.control(func(q *queued) { q.alive = s.alive }) // before the lines of rooms: it says what the server can do
	}
	m.enter(everybody) // with h.mu held: either shut finds it there, or closed is set before
	h.mu.RUnlock()
	m.Extend(opts.Expires)
	rooms := append(keys(opts.Rooms, nil), memberKey+m.id)
	_ = m.await(ctx, m.enter(rooms...), rooms) // an error only says that messages of other nodes may come later
	return m, nil
}

// ID returns the ID that the member was given, or its random one.
func (m *Member) ID() string { return m.id }

// SetData changes the data that [Hub.Members] returns for the member. It returns an
// error if v doesn't marshal to JSON.
func (m *Member) SetData(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("hub: the data of member %q: %w", m.id, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data = data
	m.hub.announcer.change(m)
	return nil
}

// Extend moves the time at which the member's permission ends, and at which it is closed, as
// [MemberOptions].Expires says. It does nothing for a member that has ended.
func (m *Member) Extend(until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.expires != nil {
		m.expires.Stop() // if it is expiring now, this call has come too late
		m.expires = nil
	}
	if !until.IsZero() && !m.ended {
		m.expires = time.AfterFunc(time.Until(until), func() { m.Close(closecode.PolicyViolation, "expired") })
	}
}

// Info returns what [Hub.Members] returns for this member.
func (m *Member) Info() MemberInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	info := MemberInfo{ID: m.id, Node: m.hub.id, Rooms: []string{}, Data: m.data}
	for key := range m.keys {
		if room, named := strings.CutPrefix(key, roomKey); named {
			info.Rooms = append(info.Rooms, room)
		}
	}
	slices.Sort(info.Rooms)
	return info
}

// Join puts the member into rooms, and returns when messages that other nodes send
// to these rooms will arrive. What this node sends arrives at once, unless it comes over
// the bus, too, by [Options].Recover. A member that has ended enters no room, which is no
// error.
//
// An error says that messages of other nodes may be missed at first, because the bus
// is away, ctx has ended, or the hub has ([ErrClosed]). The member is in the rooms
// all the same.
func (m *Member) Join(ctx context.Context, rooms ...string) error {
	to := keys(rooms, nil)
	if err := m.await(ctx, m.enter(to...), to); err != nil {
		return fmt.Errorf("hub: join: %w", err)
	}
	return nil
}

// Leave takes the member out of rooms. Rooms that it isn't in are ignored.
func (m *Member) Leave(rooms ...string) { m.leave(keys(rooms, nil)...) }

// enter puts the member into rooms. It returns the rounds at whose end the bus will
// deliver the messages of those that are new to this node, and those that have failed.
func (m *Member) enter(keys ...string) (ready []*round) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		if _, in := m.keys[key]; in || m.ended {
			continue
		}
		m.keys[key] = struct{}{}
		if r := m.hub.rooms.enter(key, m); !(r.over() && r.err == nil) && !slices.Contains(ready, r) {
			ready = append(ready, r)
		}
		m.happened(m.hub.opts.Joined, key)
		m.entered(key)
		m.hub.announcer.change(m)
	}
	return ready
}

func (m *Member) leave(keys ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		if _, in := m.keys[key]; in {
			delete(m.keys, key)
			m.hub.rooms.leave(key, m)
			m.left(key)
			m.happened(m.hub.opts.Left, key)
			m.hub.announcer.change(m)
		}
	}
}

// is reports whether the member is in what one of the keys stands for.
func (m *Member) is(keys []string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(keys, func(key string) bool { _, in := m.keys[key]; return in })
}

// Send puts a message at the end of the member's queue. It doesn't wait. When the
// queue is full, [Options].DropOldest says what happens. A message to a member that
// has ended is ignored.
func (m *Member) Send(f *Frame) {
	if m.places != nil {
		m.push(f.bare(), false)
	} else {
		m.push(f, m.hub.opts.DropOldest)
	}
}

// push is Send for what is written as it is.
func (m *Member) push(f *Frame, dropOldest bool) {
	m.mu.Lock()
	if m.ended {
		m.mu.Unlock()
		return
	}
	dropped, fits := m.queue.push(f, &m.hub.opts, dropOldest)
	m.wake()
	if !fits {
		m.tooSlow()
	}
	m.mu.Unlock()
	if dropped > 0 {
		m.hub.dropped.Add(int64(dropped))
	}
}

// tooSlow ends a member whose queue is full. m.mu is held.
func (m *Member) tooSlow() {
	if m.finish(closecode.TryAgainLater, "too slow", true) {
		m.hub.slow.Add(1)
	}
}

// Close ends the member. It leaves all rooms at once, gets the messages that are in
// its queue, and then its connection is closed. Close doesn't wait for that. Only the
// first call counts.
//
// The reason is cut to 123 bytes. A code that must not be sent (RFC 6455, section
// 7.4) gives a close frame without code and reason.
func (m *Member) Close(code int, reason string) { m.end(code, reason, false) }

// over reports whether the member has ended, although its connection may not be
// closed yet.
func (m *Member) over() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended
}

// control puts a ping or a pong before the messages that wait.
func (m *Member) control(put func(*queued)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended {
		put(&m.queue)
		m.wake()
	}
}

// end ends the member, and reports whether it had not ended before. With discard the
// messages that wait are dropped.
func (m *Member) end(code int, reason string, discard bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.finish(code, reason, discard)
}

// finish is end with m.mu held.
func (m *Member) finish(code int, reason string, discard bool) bool {
	if m.ended {
		return false
	}
	m.ended = true
	m.code, m.reason = code, closecode.Reason(reason)
	if !closecode.Sendable(code) {
		m.code, m.reason = closecode.NoStatus, ""
	}
	if discard {
		m.queue = queued{}
	}
	for key := range m.keys {
		m.hub.rooms.leave(key, m)
		m.happened(m.hub.opts.Left, key)
	}
	clear(m.keys)
	if m.places != nil {
		clear(m.places.rooms)
		m.leavePolls()
	}
	if m.expires != nil {
		m.expires.Stop()
	}
	m.hub.announcer.change(m)
	m.wake()
	return true
}
