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

// MemberOptions say who a new member is.
type MemberOptions struct {
	// ID is how others reach the member wherever it is: random if empty. Members
	// may share one, a user's browser tabs for example: what is sent to an ID
	// reaches all of them.
	ID string
	// Data is told to whom asks for members, on all nodes. It must marshal to
	// JSON.
	Data any
	// Rooms are what it is in from the start.
	Rooms []string
}

// Member is a connection of this node that is in the hub. All methods may be
// called concurrently.
type Member struct {
	hub    *Hub
	id     string
	conn   Conn
	ctx    context.Context // ends with the connection, or when it is given up
	cancel context.CancelFunc
	run    func() // m.write, so that starting it allocates nothing
	late   *time.Timer

	mu      sync.Mutex
	keys    map[string]struct{} // of the rooms it is in
	data    json.RawMessage
	queue   queued
	events  []event
	sweep   int  // the number of events at which to look for those that cancel out
	writing bool // the goroutine runs
	ended   bool
	code    int
	reason  string
}

// event is a call of Joined or Left to come.
type event struct {
	hook func(*Member, string) // or nil
	room string
}

// Connect makes a connection a member. It returns when messages of other nodes
// will reach it, or when ctx ends; if the bus is away they do once it is back.
// There is an error if Data doesn't marshal, or if Run has ended (then it wraps
// [ErrClosed] and what Run has returned); conn is still the caller's then.
//
// Whoever reads from the connection calls [Member.Close] when it has ended.
func (h *Hub) Connect(ctx context.Context, conn Conn, opts MemberOptions) (*Member, error) {
	m := &Member{hub: h, id: opts.ID, conn: conn, keys: make(map[string]struct{}, 2+len(opts.Rooms))}
	if m.id == "" {
		m.id = rand.Text()
	}
	if err := m.SetData(opts.Data); err != nil {
		return nil, err
	}
	m.ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.run = m.write
	h.mu.RLock()
	if closed := h.closed; closed != nil {
		h.mu.RUnlock()
		m.cancel()
		return nil, fmt.Errorf("hub: connect: %w", closed)
	}
	h.open.Add(1)
	m.enter(everybody) // shut finds it there
	h.mu.RUnlock()
	ready := m.enter(append(keys(opts.Rooms, nil), memberKey+m.id)...)
	_ = h.await(ctx, ready) // the bus is away or ctx has ended: it is a member all the same
	return m, nil
}

// ID returns the ID that the member was given.
func (m *Member) ID() string { return m.id }

// SetData changes what is told to whom asks for members. It fails if v doesn't
// marshal to JSON.
func (m *Member) SetData(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("hub: the data of member %q: %w", m.id, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data = data
	return nil
}

// Info returns what [Hub.Members] would.
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

// Join enters rooms, and returns when what other nodes send to them arrives. The
// member is in the rooms of this node in any case, unless it has ended. An error
// says that messages of others may be missed at first: that the bus is away, or
// ctx ended, or the hub is closed.
func (m *Member) Join(ctx context.Context, rooms ...string) error {
	if err := m.hub.await(ctx, m.enter(keys(rooms, nil)...)); err != nil {
		return fmt.Errorf("hub: join: %w", err)
	}
	return nil
}

// Leave leaves rooms.
func (m *Member) Leave(rooms ...string) { m.leave(keys(rooms, nil)...) }

// enter returns the rounds of the rooms that are new to this node.
func (m *Member) enter(keys ...string) (ready []*round) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		if _, in := m.keys[key]; in || m.ended {
			continue
		}
		m.keys[key] = struct{}{}
		if r := m.hub.rooms.enter(key, m); !r.over() && !slices.Contains(ready, r) {
			ready = append(ready, r)
		}
		m.happened(m.hub.opts.Joined, key)
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
			m.happened(m.hub.opts.Left, key)
		}
	}
}

// happened has a hook called. m.mu is held.
func (m *Member) happened(hook func(*Member, string), key string) {
	o := &m.hub.opts
	room, named := strings.CutPrefix(key, roomKey)
	if !named || o.Joined == nil && o.Left == nil {
		return
	}
	m.events = append(m.events, event{hook, room})
	if len(m.events) >= max(256, m.sweep) {
		m.events = remaining(m.events)
		m.sweep = 2 * len(m.events)
	}
	m.wake()
}

// remaining returns the events without those that others undo: a client that
// comes and goes faster than hooks return must not fill the memory.
func remaining(events []event) []event {
	left := make(map[string]int)
	for _, e := range events {
		left[e.room]++
	}
	for room, n := range left {
		if n%2 == 0 {
			delete(left, room)
		}
	}
	return slices.DeleteFunc(events, func(e event) bool {
		left[e.room]--
		return left[e.room] != 0
	})
}

// is reports whether the member is in one of the rooms.
func (m *Member) is(keys []string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(keys, func(key string) bool { _, in := m.keys[key]; return in })
}

// Send puts a message into the member's queue, behind what others have sent.
// What it does when the queue is full is said at [Options].
func (m *Member) Send(f *Frame) {
	m.mu.Lock()
	if m.ended {
		m.mu.Unlock()
		return
	}
	dropped, fits := m.queue.push(f, &m.hub.opts)
	m.wake()
	m.mu.Unlock()
	m.hub.dropped.Add(int64(dropped))
	if !fits && m.end(closecode.TryAgainLater, "too slow", true) {
		m.hub.slow.Add(1)
	}
}

// Close ends the member: it is in no room any more, gets what is in its queue,
// then the connection is closed. Close doesn't wait for that; only the first
// counts. The reason is cut to 123 bytes; a code that may not be on the wire
// gives a close frame without one.
func (m *Member) Close(code int, reason string) { m.end(code, reason, false) }

// over reports whether the member has ended.
func (m *Member) over() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended
}

// ping has a ping written next.
func (m *Member) ping() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended {
		m.queue.ping = true
		m.wake()
	}
}

func (m *Member) end(code int, reason string, discard bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
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
	m.wake()
	return true
}

// wake starts the goroutine unless it runs. m.mu is held.
func (m *Member) wake() {
	if !m.writing {
		m.writing = true
		go m.run() // ends when nothing is left to do; Conn and WriteTimeout bound that
	}
}

// write does what there is to do for the member, until there is no more.
func (m *Member) write() {
	batch := m.hub.batches.Get().(*[]*Frame)
	defer m.hub.batches.Put(batch)
	for {
		m.mu.Lock()
		events := m.events
		m.events = nil
		*batch = m.queue.pop((*batch)[:0])
		if len(events)+len(*batch) == 0 {
			m.writing = false
			ended := m.ended // for good: nothing starts this again
			m.mu.Unlock()
			if ended {
				break
			}
			return
		}
		m.mu.Unlock()

		for _, e := range events {
			if e.hook != nil {
				e.hook(m, e.room)
			}
		}
		if len(*batch) == 0 {
			continue
		}
		m.watch()
		err := m.conn.Send(m.ctx, *batch)
		m.late.Stop()
		clear(*batch)
		if err != nil {
			m.fail()
		}
	}
	m.watch()
	_ = m.conn.Close(m.ctx, m.code, m.reason) // there is nobody left to tell
	m.late.Stop()
	m.cancel()
	m.hub.open.Done()
}

// watch has the connection given up if it takes too long from now on.
func (m *Member) watch() {
	if m.late == nil {
		m.late = time.AfterFunc(m.hub.opts.WriteTimeout, m.cancel)
	} else {
		m.late.Reset(m.hub.opts.WriteTimeout)
	}
}

// fail ends a member that can't be written to.
func (m *Member) fail() {
	if !m.end(closecode.InternalError, "", true) {
		m.mu.Lock()
		m.queue = queued{}
		m.mu.Unlock()
	}
}
