package middleware

import (
	"net/http"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/limpet-go/limpet/affinity"
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

// waits reports whether an answer may be on its way to a client, so that it stays until the next
// lull, and until latest at most. The lock of the client's shard is held.
func (s *polls) waits(l *lull.Lull, latest time.Time) bool {
	now := s.now()
	l.Latest = now + time.Until(latest)
	return l.Asked != 0 && now < l.At()
}

// leaves reports whether the client of a session has to leave its home, since it was moved or
// its turn in a drain has come. It may wait for a lull until latest: for a second, and not
// behind the end of the drain. After that latest is zero.
func (g *Gateway) leaves(pin affinity.Pin) (latest time.Time, leaves bool) {
	if m := g.router.moves.of(pin.Key); m != nil {
		if _, moves := g.router.target(m, pin); moves {
			return m.turn().Add(lull.Most), true
		}
	}
	home := g.router.pool.Get(pin.Backend)
	if home == nil || home.State() != balancer.Draining || home.Keeps(pin.Key) {
		return time.Time{}, false
	}
	w := home.Wanted()
	if w.State != balancer.Draining || w.Within == 0 || !home.Keeps("") {
		return time.Time{}, true
	}
	turn := time.Duration(balancer.Turn(pin.Key) * float64(w.Within))
	return w.Since.Add(min(turn+lull.Most, w.Within)), true
}

// stays reports whether the client of a session stays at its home for a moment although it has
// to leave. It also does for a POST as long as the session wasn't ended: endLeaving ends it
// where its poll waits, and not this message.
func (g *Gateway) stays(p *poll) bool {
	latest, leaves := g.leaves(p.pin)
	if !leaves || latest.IsZero() {
		return false
	}
	h, l := g.polls.place(p.pin.Key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if g.polls.waits(l, latest) {
		return true
	}
	for o := h.first; o != nil && p.out.Method != http.MethodGet; o = o.next {
		if o.pin.Key == p.pin.Key && !o.told {
			return true
		}
	}
	return false
}
