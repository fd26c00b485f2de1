package bus

import (
	"container/list"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
)

// A mark tells a message from all others, and the copies of it that a repeated
// Publish leaves in a stream from the message.
type mark struct {
	publisher, number uint64
	// open is the lowest number that the publisher had in hand when it began with
	// this one. It is done with those below, so all of them that will ever count
	// are before this one in their streams.
	open uint64
}

func (m mark) String() string {
	return strconv.FormatUint(m.publisher, 36) + " " + strconv.FormatUint(m.number, 36) + " " + strconv.FormatUint(m.open, 36)
}

func parseMark(s string) (mark, error) {
	publisher, rest, _ := strings.Cut(s, " ")
	number, open, _ := strings.Cut(rest, " ")
	var m mark
	for _, part := range []struct {
		text string
		to   *uint64
	}{{publisher, &m.publisher}, {number, &m.number}, {open, &m.open}} {
		v, err := strconv.ParseUint(part.text, 36, 64)
		if err != nil {
			return mark{}, fmt.Errorf("bus: mark %q: %w", s, err)
		}
		*part.to = v
	}
	if m.open > m.number || m.number == 1<<64-1 {
		return mark{}, fmt.Errorf("bus: mark %q: number %d isn't in hand", s, m.number)
	}
	return m, nil
}

// A ledger is what a publisher has in hand. Its zero value is ready.
type ledger struct {
	mu        sync.Mutex
	publisher uint64
	last      uint64
	hand      list.List // of numbers, the lowest first
}

// open returns the mark of a new message, and what to call when it is done with.
func (l *ledger) open() (m mark, done func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.publisher == 0 {
		l.publisher = rand.Uint64()
	}
	l.last++
	e := l.hand.PushBack(l.last)
	return mark{publisher: l.publisher, number: l.last, open: l.hand.Front().Value.(uint64)}, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.hand.Remove(e)
	}
}

// A tracker tells the copies in a stream from what is seen for the first time.
type tracker struct {
	publishers map[uint64]*track
	sweep      int // the number of publishers at which to look for old ones
}

// A track is what was seen of one publisher.
type track struct {
	open  uint64 // all below are done with
	above map[uint64]bool
	at    uint64 // the time of its last message, in Unix milliseconds
}

// forget is the time after which a publisher that was silent is forgotten, in
// milliseconds. TCP has given up by then what it was trying to send.
const forget = 30 * 60 * 1000

// first returns whether a message that was added at a time is no copy.
func (t *tracker) first(m mark, at uint64) bool {
	p := t.publishers[m.publisher]
	if p == nil {
		p = t.track(m.publisher, at)
	}
	p.at = at
	p.raise(m.open)
	if m.number < p.open || p.above[m.number] {
		return false
	}
	if m.number > p.open {
		if p.above == nil {
			p.above = map[uint64]bool{}
		}
		p.above[m.number] = true
		return true
	}
	p.raise(m.number + 1)
	return true
}

// raise notes that all numbers below open are done with.
func (p *track) raise(open uint64) {
	if open <= p.open {
		return
	}
	if open-p.open < uint64(len(p.above)) {
		for n := p.open; n < open; n++ {
			delete(p.above, n)
		}
	} else {
		for n := range p.above {
			if n < open {
				delete(p.above, n)
			}
		}
	}
	p.open = open
}

// track starts one for a new publisher.
func (t *tracker) track(publisher, now uint64) *track {
	if t.publishers == nil {
		t.publishers, t.sweep = map[uint64]*track{}, 64
	}
	if len(t.publishers) >= t.sweep {
		for id, p := range t.publishers {
			if p.at+forget < now {
				delete(t.publishers, id)
			}
		}
		t.sweep = max(64, 2*len(t.publishers))
	}
	p := &track{}
	t.publishers[publisher] = p
	return p
}
