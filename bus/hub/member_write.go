package hub

import (
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
)

// wake starts write unless it runs. m.mu is held.
func (m *Member) wake() {
	if !m.writing {
		m.writing = true
		go m.run() // until nothing is left to do, or the Conn was given up
	}
}

// write calls the hooks that are due and writes the messages that wait, until there
// are no more. If the member has ended by then, it closes the connection.
func (m *Member) write() {
	batch := m.hub.batches.Get().(*[]*Frame)
	defer m.hub.batches.Put(batch)
	for {
		m.mu.Lock()
		events := m.events
		m.events = nil
		var messages int
		*batch, messages = m.queue.pop((*batch)[:0])
		if m.places != nil && len(m.queue.frames) == 0 {
			select {
			case m.places.empty <- struct{}{}:
			default:
			}
		}
		if len(events)+len(*batch) == 0 {
			m.writing = false
			ended := m.ended // if so, nothing calls wake any more
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
		if err != nil {
			m.fail()
		} else {
			m.hub.delivered.Add(int64(messages))
		}
		clear(*batch)
	}
	m.watch()
	_ = m.conn.Close(m.ctx, m.code, m.reason) // nobody is left who could deal with an error
	m.late.Stop()
	m.cancel()
	m.hub.open.Done()
}

// watch gives the connection up WriteTimeout from now, unless late is stopped before.
func (m *Member) watch() {
	if m.late == nil {
		m.late = time.AfterFunc(m.hub.opts.WriteTimeout, m.giveUp)
	} else {
		m.late.Reset(m.hub.opts.WriteTimeout)
	}
}

// giveUp ends a call of the Conn that takes too long.
func (m *Member) giveUp() {
	m.cancel()
	if s, ok := m.conn.(*socket); ok {
		s.cut()
	}
}

// fail ends a member that can't be written to. If it was about to end already, it
// drops what still waits.
func (m *Member) fail() {
	if !m.end(closecode.InternalError, "", true) {
		m.mu.Lock()
		m.queue = queued{}
		m.mu.Unlock()
	}
}
