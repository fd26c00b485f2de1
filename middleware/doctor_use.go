package middleware

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// remarks holds which mistakes in its use a gateway has looked for. They are those that
// NewGateway can't see.
type remarks struct {
	done   atomic.Bool  // requests have nothing to check any more
	since  atomic.Int64 // the time of the first request, in nanoseconds of Unix time
	server atomic.Bool  // its time limits were checked
}

// runWithin is how long a gateway with a Bus serves before it warns that nobody has called
// Run, its own or its pool's. At first, Run may be about to be called.
const runWithin = 10 * time.Second

// checkUse looks for mistakes that can be seen when a request comes.
func (g *Gateway) checkUse(r *http.Request) {
	if server, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok {
		g.checkServer(server)
	}
	now := time.Now().UnixNano()
	bus := g.replicas == nil || g.replicas.ran.Load()
	checks := g.router.pool.HasRun()
	switch {
	case bus && checks:
		g.remarks.done.Store(true)
		return
	case g.remarks.since.CompareAndSwap(0, now), now-g.remarks.since.Load() <= int64(runWithin), g.remarks.done.Swap(true):
		return
	}
	d := g.router.doctor
	if !bus && d.first(busNotRun) {
		d.report(busNotRun, "the gateway has a Bus, but nobody runs it, so that it hears nothing of the other replicas", "call go gateway.Run(ctx), or serve with Gateway.Serve")
	}
	if !checks && d.first(noHealthChecks) { // the pool logs it
		d.keep(noHealthChecks, "nobody checks the backends' health, so that all of them are taken to be as they were at the start for ever", "call go pool.Run(ctx), or serve with Gateway.Serve")
	}
}

// checkServer warns of time limits of the server that end requests which are in order. An
// answer takes as long as its backend needs, 25 s for a long poll, and a request as long as
// its client needs. Tunnels aren't affected: the server's limits don't apply to them.
func (g *Gateway) checkServer(server *http.Server) {
	if g.remarks.server.Swap(true) || server.ReadTimeout <= 0 && server.WriteTimeout <= 0 {
		return
	}
	if d := g.router.doctor; d.first(serverTimeouts) {
		d.report(serverTimeouts, "the http.Server's WriteTimeout ends long polls and streams that take longer, and its ReadTimeout uploads",
			"leave both 0, and set ReadHeaderTimeout and IdleTimeout", "ReadTimeout", server.ReadTimeout, "WriteTimeout", server.WriteTimeout)
	}
}

// distrust warns that a field, which a peer that isn't trusted has sent, is dropped.
// Everybody can send such a field, but a peer in a private network is most likely a proxy
// that was forgotten in ClientIP.Trusted.
func (g *Gateway) distrust(name string, from netip.Addr) {
	if !strings.HasPrefix(name, "X-Forwarded-") || !private(from) {
		return
	}
	if d := g.router.doctor; d.first(untrustedProxy) {
		d.report(untrustedProxy, fmt.Sprintf("what the peer %v says about its client in %s is dropped, as the peer isn't trusted", from, name),
			"if it is a proxy of yours, put its address into ClientIP.Trusted", "peer", from, "field", name)
	}
}

// checkPeer warns if RemoteAddr isn't what the server has set it to, an address and a port.
// Middlewares such as chi's RealIP put an address there that the client may have made up.
func (g *Gateway) checkPeer(r *http.Request, from netip.Addr) {
	if !from.IsValid() || !portless(r.RemoteAddr) {
		return
	}
	if d := g.router.doctor; d.first(remoteAddr) {
		d.report(remoteAddr, "a handler in front of the gateway, such as chi's RealIP, has replaced RemoteAddr: any client can choose its address by that, and ClientIP.Trusted doesn't see who the peer is",
			"leave that handler out, and put the addresses of your proxies into ClientIP.Trusted", "RemoteAddr", r.RemoteAddr)
	}
}

// portless reports whether an address with or without a port has none.
func portless(addr string) bool {
	colon := strings.LastIndexByte(addr, ':')
	return colon < 0 || addr[0] != '[' && strings.IndexByte(addr, ':') < colon || addr[colon-1] != ']' && addr[0] == '['
}

// checkCORS warns if an answer to a client has the field twice: browsers refuse it. own are
// those that a middleware in front of the gateway has set.
func (d *doctor) checkCORS(t *trip, own, backend int) {
	if own+backend < 2 || !d.first(corsTwice) {
		return
	}
	who, cure := "a middleware in front of the gateway and the backend both set it", "let one of them do it: the nodes, or a middleware such as rs/cors for what the gateway doesn't serve only"
	if own == 0 {
		who, cure = "the backend sets it twice", "look for a second CORS middleware in the backend, or a proxy behind the gateway that sets the field too"
	}
	d.report(corsTwice, "an answer has two fields Access-Control-Allow-Origin, which browsers refuse: "+who, cure, "path", t.in.URL.Path)
}

// carrierNAT is the shared address space of RFC 6598, which clouds use internally too.
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

// private reports whether addr can only be that of a host nearby.
func private(addr netip.Addr) bool {
	return addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || carrierNAT.Contains(addr)
}
