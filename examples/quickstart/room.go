package main

import "sync"

// A line is one message of the chat. Its sequence number lets a client that comes back say what it has already seen.
type line struct {
	Type    string `json:"type"` // always "line": what else a backend sends is told apart by it
	Seq     int64  `json:"seq"`
	From    string `json:"from"`
	Backend string `json:"backend"` // where its author was when it was written
	Hue     int    `json:"hue"`
	Text    string `json:"text"`
}

// room carries each line to every client on every backend. One variable can do that because the backends of this demo
// share a process. Backends on machines of their own need a message bus in its place; they only use say and join.
type room struct {
	mu      sync.Mutex
	seq     int64
	recent  []line
	members map[chan line]struct{}
}

const (
	backlog = 50 // lines that a newcomer is shown
	behind  = 64 // lines that a member may be late by
)

func newRoom() *room {
	return &room{members: make(map[chan line]struct{})}
}

// say numbers the line and hands it to all members. It never waits for one of them: whoever is too far behind has its
// channel closed, loses its socket, and is given what it missed when it comes back.
func (r *room) say(l line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	l.Type, l.Seq = "line", r.seq
	if r.recent = append(r.recent, l); len(r.recent) > backlog {
		r.recent = r.recent[1:]
	}
	for m := range r.members {
		select {
		case m <- l:
		default:
			delete(r.members, m)
			close(m)
		}
	}
}

// join returns the recent lines after the given number and a channel with all that follow, without a gap between them.
func (r *room) join(after int64) (missed []line, lines <-chan line, leave func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if after > r.seq {
		after = 0 // it has seen another run of this program
	}
	for _, l := range r.recent {
		if l.Seq > after {
			missed = append(missed, l)
		}
	}
	m := make(chan line, behind)
	r.members[m] = struct{}{}
	return missed, m, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.members, m)
	}
}
