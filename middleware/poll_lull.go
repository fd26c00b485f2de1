package middleware

import (
	"net/http"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/lull"
)

// A polling session that has to leave its node is ended in a lull, as a tunnel is closed in
// one: a message of its client is a POST, which counts until it is answered, and a message
// of the node is an answer to a poll.
//
// A shard knows of its clients' last messages by the hash of their keys, and may take one
// client for another. Then a session waits for nothing, or is ended at once on rare
// occasions.

// lullsPerShard is how many clients a shard tells apart. A message counts for a second at
// most, so that this is enough for some thousand POSTs a second.
const lullsPerShard = 64

// place returns the shard of a client, and what is known of its last messages, which the
// lock of the shard guards.
func (s *polls) place(key string) (*pollShard, *lull.Lull) {
	sum := xxhash.Sum64String(key)
	h := &s.shards[sum%uint64(len(s.shards))]
	return h, &h.lulls[sum>>32%lullsPerShard]
}

// now returns the time as the lulls of s count it.
func (s *polls) now() time.Duration { return time.Since(s.began) }

// begins notes that p is sent, and ends that its answer has come, or none. The lock of the
// shard is held.
func (p *poll) begins(s *polls, l *lull.Lull) {
	if p.out.Method != http.MethodGet {
		l.Ask(s.now())
	}
}

func (p *poll) ends(s *polls, l *lull.Lull, answered bool) {
	switch {
	case p.out.Method != http.MethodGet:
		l.Asked = max(1, s.now()) // a node may answer what was posted before it answers the POST
	case answered:
		l.Answer()
	}
}

// stays reports whether a client whose turn in the drain of home has come stays there for a
// moment, since an answer may be on its way: until the next lull, for a second at most, and
// not behind the end of the drain. The lock of the client's shard is held.
func (s *polls) stays(home *balancer.Backend, key string, l *lull.Lull) bool {
	w := home.Wanted()
	if l.Asked == 0 || w.State != balancer.Draining || w.Within == 0 || !home.Keeps("") {
		return false
	}
	turn := time.Duration(balancer.Turn(key) * float64(w.Within))
	now := s.now()
	l.Latest = now + time.Until(w.Since.Add(min(turn+lull.Most, w.Within)))
	return now < l.At()
}

// stays reports whether the client of a session stays at its home although its turn has
// come. It also does for a POST as long as the session wasn't ended: endDrained ends it where
// its poll waits, and not this message.
func (g *Gateway) stays(p *poll) bool {
	home := g.router.pool.Get(p.pin.Backend)
	if home == nil || home.State() != balancer.Draining || home.Keeps(p.pin.Key) || !home.Keeps("") {
		return false
	}
	h, l := g.polls.place(p.pin.Key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if g.polls.stays(home, p.pin.Key, l) {
		return true
	}
	for o := h.first; o != nil && p.out.Method != http.MethodGet; o = o.next {
		if o.pin.Key == p.pin.Key && !o.told {
			return true
		}
	}
	return false
}
