package status

import (
	"sync"
	"time"
)

// maxEvents is how many events are kept.
const maxEvents = 200

// An event is something that an operator wants to know.
type event struct {
	ID      int64  `json:"id"`
	Time    moment `json:"time"`
	Kind    string `json:"kind"`
	Backend string `json:"backend,omitempty"`
	Text    string `json:"text"`
	Who     string `json:"who,omitempty"` // only for viewers who may steer: it may be an address
}

// A timeline has the last events, and wakes those who wait for the next one.
type timeline struct {
	mu     sync.Mutex
	events []event // the oldest first
	last   int64   // the ID of the latest event
	next   chan struct{}
}

// add adds an event. The ID is given by add, and the time too if there is none.
func (t *timeline) add(e event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	e.ID = t.last
	if time.Time(e.Time).IsZero() {
		e.Time = moment(time.Now())
	}
	if len(t.events) == maxEvents {
		t.events = append(t.events[:0:0], t.events[1:]...) // after may still read the old array
	}
	t.events = append(t.events, e)
	t.wake()
}

// changed wakes those who wait, without an event.
func (t *timeline) changed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wake()
}

// wake ends the wait of all who have got the channel. t.mu is held.
func (t *timeline) wake() {
	if t.next != nil {
		close(t.next)
		t.next = nil
	}
}

// after returns the events with an ID above id, the oldest first, and a channel that is
// closed at the next change.
func (t *timeline) after(id int64) (events []event, last int64, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next == nil {
		t.next = make(chan struct{})
	}
	from := len(t.events)
	for from > 0 && t.events[from-1].ID > id {
		from--
	}
	return t.events[from:len(t.events):len(t.events)], t.last, t.next
}
