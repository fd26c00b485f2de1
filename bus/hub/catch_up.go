package hub

import (
	"errors"
	"slices"
	"time"

	"github.com/limpet-go/limpet/bus"
)

// fallBehind has catchUp bring a place up to date. m.mu is held.
func (m *Member) fallBehind(pl *place) {
	if pl.late {
		return
	}
	pl.late, pl.caught = true, 0
	m.places.late = append(m.places.late, pl)
	if !m.places.runs {
		m.places.runs = true
		go m.catchUp() // until no place is late, or the member has ended
	}
}

// catchUp brings the places up to date that are late, one after the other. One whose history
// can't be read has its next turn behind the others.
func (m *Member) catchUp() {
	const least, most = 50 * time.Millisecond, time.Second
	for pause := least; ; {
		pl := m.nextLate()
		if pl == nil {
			return
		}
		err := m.approach(pl)
		if err == nil {
			pause = least
			continue
		}
		m.putOff(pl)
		m.hub.opts.Logger.Debug("the history of a room can't be read; it is tried again", "room", pl.room, "err", err)
		select {
		case <-time.After(pause):
		case <-m.ctx.Done():
		}
		pause = min(2*pause, most)
	}
}

// nextLate returns the next place that is late.
func (m *Member) nextLate() *place {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.places
	p.late = slices.DeleteFunc(p.late, func(pl *place) bool { return !pl.late || m.ended || p.rooms[pl.key] != pl })
	if len(p.late) == 0 {
		p.runs = false
		return nil
	}
	return p.late[0]
}

// putOff puts the first of the places that are late behind the others.
func (m *Member) putOff(pl *place) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.places.late = append(slices.Delete(m.places.late, 0, 1), pl)
}

// approach brings a place nearer to the end of its room's history, by one page. An error is
// one of reading.
func (m *Member) approach(pl *place) error {
	t := m.hub.rooms.tail(pl.key)
	if t == nil {
		return nil // the member has left
	}
	end, err := t.end(m.ctx)
	if err != nil {
		return err
	}
	m.awaitQueue()
	m.mu.Lock()
	gone := m.places.rooms[pl.key] != pl
	arrived := gone || m.arrive(pl, t)
	at := pl.at
	m.mu.Unlock()
	if arrived || at == (position{}) {
		return nil
	}
	return m.read(pl, t, at, end)
}

// read reads a page behind a position, and puts it into the queue. end is that of the last
// message that was handled.
func (m *Member) read(pl *place, t *tail, at, end position) (err error) {
	if end.before(at) { // this node is behind the one that the client comes from, or the client lies
		if end, err = t.newest(m.ctx); err != nil {
			return err
		}
		if end.before(at) {
			m.lose(pl)
			return nil
		}
	}
	messages, err := t.after(m.ctx, at)
	if err == nil && len(messages) == 0 && at.before(end) {
		// Up to the end there is nothing but copies of messages, unless the end is lost, too.
		if messages, err = t.after(m.ctx, end); err == nil {
			m.mu.Lock()
			pl.at, pl.real = end, true
			m.mu.Unlock()
		}
	}
	var gap *bus.Gap
	switch {
	case errors.As(err, &gap):
		m.lose(pl)
	case err != nil:
		return err
	default:
		m.refill(pl, messages)
	}
	return nil
}

// awaitQueue waits until nothing waits for the connection.
func (m *Member) awaitQueue() {
	for {
		m.mu.Lock()
		empty := len(m.queue.frames) == 0
		m.mu.Unlock()
		if empty {
			return
		}
		select {
		case <-m.places.empty:
		case <-m.ctx.Done():
			return
		}
	}
}

// arrive reports whether a place is at the end, which is told to the client then. m.mu is
// held.
func (m *Member) arrive(pl *place, t *tail) bool {
	end, known := t.now()
	if !known {
		return false
	}
	if pl.at == (position{}) {
		pl.at = end
	}
	if pl.lost {
		pl.lost, pl.recovered = false, false
		m.tell(line{Missed: &pl.room, ID: pl.at.String()})
	}
	pl.real = pl.real || pl.at == end
	if !pl.real || pl.at.before(end) {
		return false
	}
	pl.late = false
	if pl.entering {
		pl.entering = false
		m.tell(line{Joined: &pl.room, ID: pl.at.String(), Recovered: pl.recovered})
	}
	return true
}

func (m *Member) lose(pl *place) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pl.lose()
}

// lose gives up to find what is missing behind a place: it goes on at the end. Member.mu is
// held.
func (pl *place) lose() { pl.at, pl.lost, pl.caught = position{}, true, 0 }

// refill puts messages of the history into the queue, which is empty but for what has come
// meanwhile.
func (m *Member) refill(pl *place, messages []*roomMessage) {
	m.mu.Lock()
	gets := m.is
	if pl.entering { // it wasn't here when they were sent
		gets = m.recovers
	}
	m.mu.Unlock()
	frames, is := make([]*Frame, len(messages)), make([]bool, len(messages))
	for i, msg := range messages {
		frames[i], is[i] = msg.frameFor(m, gets)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.places.rooms[pl.key] != pl {
		return
	}
	pl.real = true
	if pl.caught += len(messages); pl.caught > m.hub.opts.Recover {
		pl.lose()
		return
	}
	for i, f := range frames {
		pl.at = messages[i].at
		if is[i] {
			m.remember(messages[i])
		}
		if f != nil {
			m.queue.add(f)
		}
	}
	m.wake()
}

// recovers reports whether the member gets what was sent, while it was away, to what one of the
// keys stands for.
func (m *Member) recovers(keys []string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(keys, func(key string) bool {
		pl := m.places.rooms[key]
		return pl != nil && !pl.fresh
	})
}
