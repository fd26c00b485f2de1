package hub

import (
	"context"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/limpet-go/limpet/bus"
)

// A tail is what this node knows of the end of a room's history. It is there as long as the
// room has members here, if the hub has [Options].Recover.
type tail struct {
	hub   *Hub
	key   string
	ready *round // subscribes to the room's topic

	mu sync.Mutex
	// at is the newest message that was handled. If known is set, all that come later
	// will be handled, too: those who are at this one have missed nothing.
	at      position
	known   bool
	gaps    int     // how often messages were missing
	finding *flight // finds the end of the history; nil if nothing does
	looking *flight // looks for the newest message; likewise
	pages   []*page // those that are being read, or were a moment ago
	fewer   int     // by how many messages a page has to be smaller than pageMessages, because they are large
}

// flight is something that one does while others wait for it.
type flight struct {
	done chan struct{}
	at   position // what it has found; may be read once done is closed
	err  error    // likewise
}

// A page is a part of a room's history, from one position on. All who come back at the same
// moment, because a node has died for example, get what was read for the first of them.
type page struct {
	from     position
	done     chan struct{} // closed when it was read
	read     bool          // likewise, under tail.mu
	messages []*roomMessage
	err      error
}

const (
	pageMessages = 128             // read at once
	pageKept     = 2 * time.Second // how long a page is kept for others
)

// advance notes that a message is handled.
func (t *tail) advance(at position) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at.before(at) {
		t.at = at
	}
}

// missed notes that messages were missing.
func (t *tail) missed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at, t.known = position{}, false
	t.gaps++
}

// now returns the position of the newest message that was handled, if that is known.
func (t *tail) now() (at position, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at, t.known
}

// end returns the position of the newest message that was handled. If that isn't known it
// waits until the room's topic is subscribed to, and asks the history then.
func (t *tail) end(ctx context.Context) (position, error) {
	select {
	case <-t.ready.done: // an error says that there will be a Gap later
	case <-ctx.Done():
		return position{}, ctx.Err()
	}
	for {
		if at, known := t.now(); known {
			return at, nil
		}
		t.mu.Lock()
		f, gaps := t.finding, t.gaps
		if f != nil {
			t.mu.Unlock()
			select {
			case <-f.done:
			case <-ctx.Done():
				return position{}, ctx.Err()
			}
		} else {
			f = &flight{done: make(chan struct{})}
			t.finding = f
			t.mu.Unlock()
			at, err := t.find()
			t.mu.Lock()
			if f.err = err; err == nil && gaps == t.gaps {
				t.known = true
				if t.at.before(at) {
					t.at = at
				}
			}
			t.finding = nil
			close(f.done)
			t.mu.Unlock()
		}
		if f.err != nil {
			return position{}, f.err
		}
	}
}

// find returns the position of the newest message. If there is none it adds one that
// changes nothing: only with a message at its position, a client that comes back can be told
// from one that was there before the history was lost.
func (t *tail) find() (position, error) {
	h := t.hub
	ctx, cancel := context.WithTimeout(context.Background(), h.opts.Timeout)
	defer cancel()
	if at, err := t.last(ctx); err != nil || at != (position{}) {
		return at, err
	}
	e := envelope{kind: kindLeave, node: h.id, to: []string{t.key}, payload: appendStrings(nil, nil)}
	id, err := h.history.Append(ctx, h.topic(t.key), e.append(nil))
	return parsePosition(id), err
}

// last returns the position of the newest message, or none if there is none.
func (t *tail) last(ctx context.Context) (position, error) {
	list, err := t.hub.history.Last(ctx, t.hub.topic(t.key), 1)
	if err != nil || len(list) == 0 {
		return position{}, err
	}
	return parsePosition(list[0].ID), nil
}

// newest returns what last does, for all who call it at the same moment together.
func (t *tail) newest(ctx context.Context) (position, error) {
	for first := true; ; first = false {
		t.mu.Lock()
		f := t.looking
		mine := f == nil
		if mine {
			f = &flight{done: make(chan struct{})}
			t.looking = f
		}
		t.mu.Unlock()
		if mine {
			t.look(f)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return position{}, ctx.Err()
		}
		if mine || !first {
			return f.at, f.err
		}
		// It had begun before this call: what has come in between may be missing.
	}
}

// look is a flight of newest.
func (t *tail) look(f *flight) {
	ctx, cancel := context.WithTimeout(context.Background(), t.hub.opts.Timeout)
	defer cancel()
	f.at, f.err = t.last(ctx)
	t.mu.Lock()
	t.looking = nil
	t.mu.Unlock()
	close(f.done)
}

// after returns messages behind a position, as [bus.History] does.
func (t *tail) after(ctx context.Context, at position) ([]*roomMessage, error) {
	for {
		t.mu.Lock()
		i := slices.IndexFunc(t.pages, func(p *page) bool { return p.serves(at) })
		if i < 0 {
			p := &page{from: at, done: make(chan struct{})}
			t.pages = append(t.pages, p)
			t.mu.Unlock()
			t.read(p)
			return p.messages, p.err
		}
		p := t.pages[i]
		t.mu.Unlock()
		select {
		case <-p.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if list := p.behind(at); len(list) > 0 || p.err != nil {
			return list, p.err
		}
		// There was nothing when this page was read, but that began before now.
	}
}

// read reads a page, and keeps it for a moment if there is something in it. The payloads in it
// aren't more than QueueBytes, unless it is one.
func (t *tail) read(p *page) {
	ctx, cancel := context.WithTimeout(context.Background(), t.hub.opts.Timeout)
	defer cancel()
	t.mu.Lock()
	n := pageMessages - t.fewer
	t.mu.Unlock()
	var list []bus.Message
	list, p.err = t.hub.history.After(ctx, t.hub.topic(t.key), p.from.String(), n)
	bytes := 0
	for i, msg := range list {
		if bytes += len(msg.Data); bytes > t.hub.opts.QueueBytes && i > 0 {
			n = i // a member's queue takes no more, and another page has the rest
			break
		}
		p.messages = append(p.messages, recalled(t.key, msg))
	}
	if bytes < t.hub.opts.QueueBytes/2 {
		n *= 2
	}
	t.mu.Lock()
	p.read = true
	if p.err == nil {
		t.fewer = pageMessages - min(n, pageMessages)
	}
	t.mu.Unlock()
	close(p.done)
	if len(list) > 0 {
		time.AfterFunc(pageKept, func() { t.drop(p) })
	} else {
		t.drop(p)
	}
}

func (t *tail) drop(p *page) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pages = slices.DeleteFunc(t.pages, func(other *page) bool { return other == p })
}

// serves reports whether a page has what is behind a position, or will. tail.mu is held.
func (p *page) serves(at position) bool {
	if !p.read {
		return p.from == at
	}
	return len(p.behind(at)) > 0
}

// behind returns the messages of a page behind the one at a position.
func (p *page) behind(at position) []*roomMessage {
	if p.from == at {
		return p.messages
	}
	i := sort.Search(len(p.messages), func(i int) bool { return !p.messages[i].at.before(at) })
	if i == len(p.messages) || p.messages[i].at != at {
		return nil
	}
	return p.messages[i+1:]
}
