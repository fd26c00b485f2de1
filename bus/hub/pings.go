package hub

import (
	"sync"
	"time"
)

// pings sends clients a ping every so often. All of them wait equally long, so they stand
// in a queue, and one timer is for the first of it.
type pings struct {
	every time.Duration
	began time.Time

	mu          sync.Mutex
	first, last *socket
	timer       *time.Timer // nil until somebody has been in the queue
}

// add puts a client at the end of the queue.
func (p *pings) add(s *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.append(s); p.first == s {
		p.set()
	}
}

// remove takes a client out of the queue, if it is there.
func (p *pings) remove(s *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.first
	if s.prev == nil && s != first {
		return
	}
	if p.unlink(s); s == first {
		p.set()
	}
}

// append and unlink need p.mu held.
func (p *pings) append(s *socket) {
	s.due = time.Since(p.began) + p.every
	if s.prev = p.last; s.prev != nil {
		s.prev.next = s
	} else {
		p.first = s
	}
	p.last = s
}

func (p *pings) unlink(s *socket) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		p.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		p.last = s.prev
	}
	s.next, s.prev = nil, nil
}

// set sets the timer for the first one. p.mu is held.
func (p *pings) set() {
	switch {
	case p.first == nil:
		if p.timer != nil {
			p.timer.Stop()
		}
	case p.timer == nil:
		p.timer = time.AfterFunc(p.first.due-time.Since(p.began), p.ping)
	default:
		p.timer.Reset(p.first.due - time.Since(p.began))
	}
}

// ping sends a ping to those whose turn it is, and cuts those of which nothing has come
// since their last one.
func (p *pings) ping() {
	for {
		s, alive := p.next()
		switch {
		case s == nil:
			return
		case alive:
			s.member.control(func(q *queued) { q.ping, q.alive = true, s.alive })
		default:
			go s.lose() // a connection of TLS may take seconds to close, and others wait for their pings
		}
	}
}

// next returns the first one if it is its turn. One that is alive goes to the end.
func (p *pings) next() (s *socket, alive bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s = p.first
	if s == nil || s.due > time.Since(p.began) {
		p.set()
		return nil, false
	}
	p.unlink(s)
	if alive = s.heard.Swap(false); alive {
		p.append(s)
	}
	return s, alive
}
