package middleware

import (
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// remarks holds which mistakes in its use a gateway has looked for. They are those that
// NewGateway can't see, and each is logged as a warning, once.
type remarks struct {
	done   atomic.Bool  // requests have nothing to check any more
	since  atomic.Int64 // the time of the first request, in nanoseconds of Unix time
	server atomic.Bool  // its time limits were checked
	peer   atomic.Bool  // a peer was taken for a proxy that isn't in ClientIP.Trusted
}

// runWithin is how long a gateway with a Bus serves before it warns that nobody has called
// Run. At first, Run may be about to be called.
const runWithin = 10 * time.Second

// checkUse looks for mistakes that can be seen when a request comes.
func (g *Gateway) checkUse(r *http.Request) {
	if server, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok {
		g.checkServer(server)
	}
	now := time.Now().UnixNano()
	switch {
	case g.replicas == nil || g.replicas.ran.Load():
		g.remarks.done.Store(true)
	case g.remarks.since.CompareAndSwap(0, now):
	case now-g.remarks.since.Load() > int64(runWithin) && !g.remarks.done.Swap(true):
		g.router.log.Warn("the gateway has a Bus, but nobody runs it, so that it hears nothing of the other replicas: call go gateway.Run(ctx), or serve with Gateway.Serve")
	}
}

// checkServer warns of time limits of the server that end requests which are in order. An
// answer takes as long as its backend needs, 25 s for a long poll, and a request as long as
// its client needs. Tunnels aren't affected: the server's limits don't apply to them.
func (g *Gateway) checkServer(server *http.Server) {
	if g.remarks.server.Swap(true) || server.ReadTimeout <= 0 && server.WriteTimeout <= 0 {
		return
	}
	g.router.log.Warn("the http.Server's WriteTimeout ends long polls and streams that take longer, and its ReadTimeout uploads: leave both 0, and set ReadHeaderTimeout and IdleTimeout",
		"ReadTimeout", server.ReadTimeout, "WriteTimeout", server.WriteTimeout)
}

// distrust warns that a field, which a peer that isn't trusted has sent, is dropped.
// Everybody can send such a field, but a peer in a private network is most likely a proxy
// that was forgotten in ClientIP.Trusted.
func (g *Gateway) distrust(name string, from netip.Addr) {
	if g.remarks.peer.Load() || !strings.HasPrefix(name, "X-Forwarded-") || !private(from) || g.remarks.peer.Swap(true) {
		return
	}
	g.router.log.Warn("what a peer says about its client is dropped, as the peer isn't trusted: if it is a proxy of yours, put its address into ClientIP.Trusted",
		"peer", from, "field", name)
}

// carrierNAT is the shared address space of RFC 6598, which clouds use internally too.
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

// private reports whether addr can only be that of a host nearby.
func private(addr netip.Addr) bool {
	return addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || carrierNAT.Contains(addr)
}
