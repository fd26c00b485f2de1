package middleware

import (
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// remarks are what a gateway finds wrong in how it is used, and could not find when
// it was made. Each is a warning that is given once.
type remarks struct {
	done   atomic.Bool // nothing is left to look for when a request comes
	since  atomic.Int64
	server atomic.Bool // its time limits were looked at
	peer   atomic.Bool // one is taken for a proxy of the user's own
}

// runWithin is how long a gateway with a Bus serves before it warns that nobody has
// called Run, which may be about to start at first.
const runWithin = 10 * time.Second

// checkUse looks at what a request tells.
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

// checkServer warns of time limits of a server that end what a gateway is for. An
// answer takes as long as its backend needs, 25 s for a long poll, and a request as
// long as its client. Tunnels are out of the server's hands.
func (g *Gateway) checkServer(server *http.Server) {
	if g.remarks.server.Swap(true) || server.ReadTimeout <= 0 && server.WriteTimeout <= 0 {
		return
	}
	g.router.log.Warn("the http.Server's WriteTimeout ends long polls and streams that take longer, and its ReadTimeout uploads: leave both 0, and set ReadHeaderTimeout and IdleTimeout",
		"ReadTimeout", server.ReadTimeout, "WriteTimeout", server.WriteTimeout)
}

// distrust warns that a field of this name, which came from a peer that isn't
// trusted, is dropped. Anybody can send one; but a peer in a private network is
// most likely a proxy that was forgotten in ClientIP.
func (g *Gateway) distrust(name string, from netip.Addr) {
	if g.remarks.peer.Load() || !strings.HasPrefix(name, "X-Forwarded-") || !private(from) || g.remarks.peer.Swap(true) {
		return
	}
	g.router.log.Warn("what a peer says about its client is dropped, as the peer isn't trusted: if it is a proxy of yours, put its address into ClientIP.Trusted",
		"peer", from, "field", name)
}

// carrierNAT is the shared address space of RFC 6598, which clouds use within too.
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

func private(addr netip.Addr) bool {
	return addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || carrierNAT.Contains(addr)
}
