package middleware

import (
	"context"
	"net/netip"
	"time"

	"github.com/limpet-go/limpet/internal/stay"
)

// A limitStay is what a Limit counts: a request in flight, or a tunnel.
type limitStay struct {
	limit  *Limit
	shard  *limitShard // nil if the client isn't counted
	client *limitClient
	tunnel bool
}

// End is called once.
func (s *limitStay) End() {
	if s.tunnel {
		s.limit.tunnels.Add(-1)
	}
	if s.shard != nil {
		s.shard.leave(s.client, time.Since(s.limit.began))
	}
}

// adopt counts a WebSocket that was taken over from another process, even if there are too many,
// until End of what it returns is called.
func (l *Limit) adopt(addr netip.Addr) *limitStay {
	s := &limitStay{limit: l, tunnel: true}
	l.tunnels.Add(1)
	if addr = limitKey(addr); l.clients != nil && addr.IsValid() {
		l.clients.adopt(s, addr, time.Since(l.began))
	}
	return s
}

// A handshakeStay is the limitStay of a handshake. It ends when its handler has returned and
// all who hold it have released it.
type handshakeStay struct {
	stay.Stay
	limitStay
	addr netip.Addr
	now  time.Duration
}

// HoldCount has each [Limit] in front count a WebSocket until release is called, and not only
// until the handler returns. It is for handlers that take a connection over and return before
// that is closed. A [Gateway] and the handler of [hub.Hub.Handler] do so themselves. ctx is
// the context of the request; the handler must not have returned yet. Calls of release after
// the first do nothing.
func HoldCount(ctx context.Context) (release func()) {
	if release = stay.Hold(ctx); release == nil {
		return func() {}
	}
	return release
}
