package hub

import (
	"context"
	"strings"
)

// places are where a member that speaks [Protocol] is in each of its rooms. They are under
// Member.mu.
type places struct {
	named map[string]string // the positions that the client has named, by room that it hasn't entered
	rooms map[string]*place // by key
	late  []*place          // those that catchUp is to bring up to date
	runs  bool              // catchUp runs
	empty chan struct{}     // has a value when the queue may be empty
	once  []string          // the last messages that it may get in another room again, see remember
	polls map[uint64]*poll  // the open questions to the member, by number
}

// A place is where a member is in a room:
//
//	late   what it is                          what moves it on
//	-----  ----------------------------------  -----------------------------------------
//	true   the history has messages for it,    catchUp: it reads until it has reached the
//	       or may have: those that come over   room's tail
//	       the bus are left to catchUp
//	false  at the end: what comes over the     deliver: the queue is full, gap: messages
//	       bus is put into the queue           of the bus are missing
type place struct {
	key       string
	room      string
	late      bool
	at        position // of the last message that was put into the queue; none: at the end
	real      bool     // there is, or was, a message at this position: it isn't just what the client says
	lost      bool     // messages are missing, of which the client has to be told
	fresh     bool     // the client has named no position: what was sent before it came isn't for it here
	entering  bool     // the client has to be told that it is in the room
	recovered bool     // nothing is missing since the client was last here
	caught    int      // the messages of the history since it was late
}

func newPlaces(named map[string]string) *places {
	p := &places{named: make(map[string]string, len(named)), rooms: make(map[string]*place), empty: make(chan struct{}, 1)}
	for room, id := range named {
		p.named[room] = id
	}
	return p
}

// entered gives the member a place in a room. m.mu is held.
func (m *Member) entered(key string) {
	room, ok := strings.CutPrefix(key, roomKey)
	if m.places == nil || !ok {
		return
	}
	id, named := m.places.named[room]
	delete(m.places.named, room)
	if m.hub.history == nil {
		m.places.rooms[key] = &place{key: key, room: room}
		m.tell(line{Joined: &room})
		return
	}
	pl := &place{key: key, room: room, fresh: !named, entering: true}
	if named {
		pl.at = parsePosition(id)
		pl.recovered, pl.lost = pl.at != position{}, pl.at == position{}
	}
	m.places.rooms[key] = pl
	if t := m.hub.rooms.tail(key); !m.arrive(pl, t) {
		m.fallBehind(pl)
	}
}

// await waits until rounds have ended, and until the member has a place in rooms.
func (m *Member) await(ctx context.Context, rounds []*round, keys []string) error {
	err := m.hub.await(ctx, rounds)
	if m.places == nil || err != nil {
		return err
	}
	return m.settle(ctx, keys)
}

// settle gives places that have none a position at the end of the history. What is sent to
// the rooms from then on arrives.
func (m *Member) settle(ctx context.Context, keys []string) error {
	for _, key := range keys {
		m.mu.Lock()
		pl := m.places.rooms[key]
		settled := pl == nil || !pl.late || pl.at != position{}
		m.mu.Unlock()
		t := m.hub.rooms.tail(key)
		if settled || t == nil {
			continue
		}
		end, err := t.end(ctx)
		if err != nil {
			return err
		}
		m.mu.Lock()
		if pl.at == (position{}) {
			pl.at, pl.real = end, true
		}
		if m.places.rooms[key] == pl && pl.late {
			m.arrive(pl, t) // catchUp does it if messages have come already
		}
		m.mu.Unlock()
	}
	return nil
}

// left takes the place in a room away. m.mu is held.
func (m *Member) left(key string) {
	if m.places == nil || m.places.rooms[key] == nil {
		return
	}
	room := m.places.rooms[key].room
	delete(m.places.rooms, key)
	m.tell(line{Left: &room})
}

// tell puts a line into the queue. QueueMessages doesn't bound lines: a member that comes into
// two rooms gets two at once. m.mu is held.
func (m *Member) tell(l line) {
	switch f := l.frame(); {
	case m.ended:
	case len(m.queue.frames) == 0 || m.queue.bytes+f.size() <= m.hub.opts.QueueBytes:
		m.queue.add(f)
		m.wake()
	default:
		m.tooSlow()
	}
}

// tellAbsent tells the client in which rooms it isn't, although it has named a position.
func (m *Member) tellAbsent() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for room := range m.places.named {
		m.tell(line{Left: &room})
	}
}

// deliver puts a message to a room into the queue of a member that speaks [Protocol]. One
// that doesn't fit is left to the history.
func (m *Member) deliver(key string, msg *roomMessage) {
	f, is := msg.frameFor(m, m.is)
	if f == nil {
		return
	}
	if msg.at == (position{}) {
		m.push(f, false)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch pl := m.places.rooms[key]; {
	case pl == nil || pl.late || !pl.at.before(msg.at):
	case !m.queue.fits(f, &m.hub.opts):
		m.fallBehind(pl)
	default:
		pl.at = msg.at
		if is {
			m.remember(msg)
		}
		m.queue.add(f)
		m.wake()
	}
}

// missed looks into the history for the messages that the bus has lost, or tells the client
// of them.
func (m *Member) missed(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch pl := m.places.rooms[key]; {
	case pl == nil:
	case m.hub.history == nil:
		m.tell(line{Missed: &pl.room})
	default:
		pl.real = false
		m.fallBehind(pl)
	}
}
