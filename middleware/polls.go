package middleware

import (
	"net/http"
	"sync"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/lull"
)

// polls are the requests with Fixed pins that a gateway has under way. Most of them are long
// polls, each of which waits at a node for news: when a client has to leave its node, the
// gateway must find the poll, as it finds a tunnel.
//
// The requests are spread over shards by the keys of their clients, so that requests don't
// share one lock.
type polls struct {
	began  time.Time // set before the first request
	shards [64]pollShard
	ending endings
}

type pollShard struct {
	mu    sync.Mutex
	first *poll
	lulls [lullsPerShard]lull.Lull // see place
	_     [48]byte                 // keeps the locks of two shards out of one cache line
}

// A poll is one of the requests in polls. While it is there, the handler's goroutine doesn't
// change out's URL and Header, and another goroutine may read them with the shard's lock held.
type poll struct {
	prev, next *poll
	out        *http.Request
	pin        affinity.Pin // as it was found
	told       bool         // endPolling was called
}

func (s *polls) shard(key string) *pollShard {
	h, _ := s.place(key)
	return h
}

func (s *polls) add(p *poll) {
	h, l := s.place(p.pin.Key)
	h.mu.Lock()
	defer h.mu.Unlock()
	p.begins(s, l)
	if p.next = h.first; p.next != nil {
		p.next.prev = p
	}
	h.first = p
}

// remove removes p, which was answered or has failed.
func (s *polls) remove(p *poll, answered bool) {
	h, l := s.place(p.pin.Key)
	h.mu.Lock()
	defer h.mu.Unlock()
	p.ends(s, l, answered)
	if p.next != nil {
		p.next.prev = p.prev
	}
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		h.first = p.next
	}
	*p = poll{}
}

// each calls f for each poll with the lock of its shard held, until f returns false.
func (s *polls) each(f func(*poll) bool) {
	for i := range s.shards {
		if !s.shards[i].each(f) {
			return
		}
	}
}

func (h *pollShard) each(f func(*poll) bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := h.first; p != nil; p = p.next {
		if !f(p) {
			return false
		}
	}
	return true
}

// posting reports whether the client is sending data to its node.
func (s *polls) posting(key string) bool {
	return !s.shard(key).each(func(p *poll) bool { return p.pin.Key != key || p.out.Method == http.MethodGet })
}

// send passes a plain request on. One with a Fixed pin is among the polls meanwhile.
func (g *Gateway) send(p *passage) (*http.Response, error) {
	if !p.pin.Fixed {
		return g.router.send(&p.trip)
	}
	found := p.pin
	res, err := g.sendPoll(p)
	if err == nil && p.backend == nil {
		// The node has the session still, unless it is gone. It is told before the client
		// comes back elsewhere, so that what the client has missed can be found there.
		if told := g.endPolling(&p.out.Request, found); told != nil {
			timer := time.NewTimer(tellClientWithin)
			defer timer.Stop()
			select {
			case <-told:
			case <-timer.C:
			case <-p.in.Context().Done():
			}
		}
	}
	return res, err
}

func (g *Gateway) sendPoll(p *passage) (res *http.Response, err error) {
	p.poll.out, p.poll.pin = &p.out.Request, p.pin
	p.stays = g.stays(&p.poll)
	g.polls.add(&p.poll)
	defer func() { g.polls.remove(&p.poll, res != nil && p.backend != nil) }()
	return g.router.send(&p.trip)
}

const (
	scanPause    = 10 * time.Millisecond // between two scans at least
	scanPauseMax = time.Second
)

// endLeaving ends the sessions of all polls whose clients have to leave their homes, and which
// don't wait for an answer: see leaves. As long as a backend drains, and for two seconds after
// clients were moved, it has itself called again and again, by one timer. The pause is 50 times
// as long as the scan took, but one second at most, so that scans take about 2% of the time,
// however many polls there are.
func (g *Gateway) endLeaving() {
	began := time.Now()
	goesOn := began.Sub(g.router.moves.last()) < 2*lull.Most
	for b := range g.router.pool.All() {
		w := b.Wanted()
		goesOn = goesOn || b.State() == balancer.Draining && w.State == balancer.Draining && w.Within > 0
	}
	if !goesOn {
		return
	}
	g.polls.each(func(p *poll) bool {
		if latest, leaves := g.leaves(p.pin); leaves && !p.told {
			if _, l := g.polls.place(p.pin.Key); !g.polls.waits(l, latest) {
				g.endPoll(p)
			}
		}
		return g.polls.ending.room() // the rest has its turn in the next scan
	})
	g.scans.schedule(max(scanPause, min(50*time.Since(began), scanPauseMax)), g.endLeaving)
}

// endPollsOf ends the sessions of the waiting polls of the client whose key has this hash.
func (g *Gateway) endPollsOf(session string) {
	g.polls.each(func(p *poll) bool {
		if p.pin.Key != "" && sessionHash(p.pin.Key) == session {
			g.endPoll(p)
		}
		return true
	})
}

// endPoll ends the session of p. The lock of p's shard is held.
func (g *Gateway) endPoll(p *poll) {
	if !p.told {
		p.told = true
		g.endPolling(p.out, p.pin)
	}
}
