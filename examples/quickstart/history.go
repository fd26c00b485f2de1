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

// history numbers the lines and keeps the last of them. It is the database that backends on machines of their own would
// share; what is said now travels over the bus.
type history struct {
	mu     sync.Mutex
	seq    int64
	recent []line
}

const backlog = 50 // lines that a newcomer is shown

// add returns the line with its number.
func (h *history) add(l line) line {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	l.Type, l.Seq = "line", h.seq
	if h.recent = append(h.recent, l); len(h.recent) > backlog {
		h.recent = h.recent[1:]
	}
	return l
}

// last returns the number of the last line.
func (h *history) last() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seq
}

// after returns the recent lines behind the one with the given number.
func (h *history) after(seq int64) (missed []line) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if seq > h.seq {
		seq = 0 // it has seen another run of this program
	}
	for _, l := range h.recent {
		if l.Seq > seq {
			missed = append(missed, l)
		}
	}
	return missed
}
