package bus

import (
	"container/list"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
)

// A mark identifies a message. A Publish that is repeated may leave several copies of a
// message in a stream, all with the same mark.
type mark struct {
	publisher, number uint64
	// open is the lowest number that the publisher wasn't done with when it began to
	// publish this message. The Publish of each message with a lower number had
	// returned by then. So a message with a lower number that comes behind this one
	// in a stream is a copy, or is one whose Publish has returned an error; neither
	// is delivered.
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

// A ledger gives numbers to the messages of a publisher, and keeps those that it isn't
// done with. The zero value is ready for use.
type ledger struct {
	mu        sync.Mutex
	publisher uint64    // random, 0 before the first message
	last      uint64    // the last number
	hand      list.List // the numbers that it isn't done with, the lowest first
}

// open returns the mark of a new message. done must be called when its Publish returns.
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

// A tracker recognizes the messages of a stream that are copies of others. Each
// subscription has one for each of its streams. The zero value is ready for use.
type tracker struct {
	publishers map[uint64]*track
	sweep      int // the number of publishers at which those that were silent are forgotten
}

// A track is what was seen of one publisher: all numbers below open, and those in above.
type track struct {
	open  uint64          // all numbers below are seen, or will never count
	above map[uint64]bool // the numbers above open that were seen
	at    uint64          // the time of its last message, in Unix milliseconds
}

// forget is the time in milliseconds after which a publisher that was silent is
// forgotten. By then TCP has given up to send what may still be on its way, so no copy of
// its messages can come any more.
const forget = 30 * 60 * 1000

// first reports whether a message is seen for the first time. at is the time when it was
// added to the stream, in Unix milliseconds.
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

// raise notes that no number below open will count any more.
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

// track begins to track a new publisher.
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
