package middleware

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/limpet-go/limpet/balancer"
)

// ClientIP finds the address of a client behind trusted proxies.
//
// A peer is the other end of a connection. What a peer says about its client in
// X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, Forwarded and X-Real-IP is
// believed only if the peer is trusted. Backends don't get such fields of other peers. If
// a peer that isn't trusted has a private address, it may be a load balancer that was
// forgotten, and a warning is logged once.
//
// Trust the addresses of the load balancers in front of this service, and never a range
// that clients can connect from: a peer in Trusted can claim any address. The zero value
// trusts nobody, which is right for a service that clients reach directly.
//
// ClientIP never changes RemoteAddr. All methods may be called concurrently.
type ClientIP struct {
	// Trusted has the addresses of the trusted peers. IPv4 addresses are to be written
	// as IPv4, not mapped into IPv6. A prefix that has all addresses is refused.
	Trusted []netip.Prefix
}

// Addr returns the client's address: the nearest one that isn't a trusted proxy's. It
// reads X-Forwarded-For from the right, all lines as one list. It stops at the first entry
// that is no address, since nobody trusted has written what is left of it. IPv4-mapped
// addresses are unmapped; zones and ports are dropped. Addr returns the zero Addr when the
// peer has no IP address, as on a Unix socket.
func (c ClientIP) Addr(r *http.Request) netip.Addr {
	addr := peer(r)
	if !c.trusts(addr) {
		return addr
	}
	return c.behind(addr, r)
}

// behind returns the address of the client behind addr, a trusted proxy's.
func (c ClientIP) behind(addr netip.Addr, r *http.Request) netip.Addr {
	lines := r.Header["X-Forwarded-For"]
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			var entry string
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, entry = rest[:comma], rest[comma+1:]
			} else {
				entry, more = rest, false
			}
			if entry = strings.Trim(entry, " \t"); entry == "" {
				continue
			}
			hop, ok := parseHop(entry)
			if !ok {
				return addr
			}
			addr = hop
			if !c.trusts(addr) {
				return addr
			}
		}
	}
	return addr
}

// Secure reports whether the client's own connection used TLS: this process terminated
// it, or a trusted peer says so in X-Forwarded-Proto. If that has several values the last
// one counts, which the nearest proxy has written.
func (c ClientIP) Secure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	return saysHTTPS(r) && c.trusts(peer(r))
}

// saysHTTPS reports whether X-Forwarded-Proto says that the client's connection
// used TLS.
func saysHTTPS(r *http.Request) bool {
	lines := r.Header["X-Forwarded-Proto"]
	if len(lines) == 0 {
		return false
	}
	return strings.EqualFold(lastItem(lines), "https")
}

// lastItem returns the last item of a list, which the nearest proxy has written.
func lastItem(lines []string) string {
	last := lines[len(lines)-1]
	return strings.Trim(last[strings.LastIndexByte(last, ',')+1:], " \t")
}

func (c ClientIP) validate() error {
	for _, p := range c.Trusted {
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("ClientIP.Trusted has %v, which no address is in: write IPv4 prefixes as IPv4", p)
		}
		if p.Bits() == 0 {
			return fmt.Errorf("ClientIP.Trusted has %v, so every client could claim any address: name the addresses of the load balancers in front", p)
		}
	}
	return nil
}

func (c ClientIP) trusts(addr netip.Addr) bool {
	for _, p := range c.Trusted {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// forward adds the fields that tell the backend about the client to out, the outgoing
// header. out is a copy of in.Header without untrusted fields, and from is the peer's
// address. The values are stored in room, which saves allocations.
//
// The X-Forwarded fields of a trusted peer are kept and extended. Forwarded and X-Real-IP
// are always written anew: a trusted proxy that writes X-Forwarded-For may pass on a
// Forwarded field that the client has made up.
func (c ClientIP) forward(in *http.Request, from netip.Addr, trusted bool, out http.Header, room *[5]string) {
	addr, proto := from, "http"
	if trusted {
		addr = c.behind(from, in)
	}
	if in.TLS != nil || trusted && saysHTTPS(in) {
		proto = "https"
	}
	hop := peerText(in.RemoteAddr, from)
	client := hop
	if addr != from {
		client = addr.String()
	}
	set := func(i int, name, value string) {
		room[i] = value
		out[name] = room[i : i+1 : i+1]
	}
	if from.IsValid() {
		set(0, "X-Forwarded-For", appendHop(out["X-Forwarded-For"], hop))
		set(1, "X-Real-Ip", client)
	}
	if len(out["X-Forwarded-Host"]) == 0 {
		set(2, "X-Forwarded-Host", in.Host)
	}
	if len(out["X-Forwarded-Proto"]) == 0 {
		set(3, "X-Forwarded-Proto", proto)
	}
	set(4, "Forwarded", forwarded(addr, client, out["X-Forwarded-Host"][0], proto))
}

// untrustedField reports whether a field says something about the client that must not be
// believed, or that forward writes anew. trusted says whether the peer is trusted.
func untrustedField(name string, trusted bool) bool {
	return name == "X-Real-Ip" || !trusted && strings.HasPrefix(name, "X-Forwarded-") ||
		strings.IndexByte(name, '_') >= 0 && foldsToForwarded(name)
}

// foldsToForwarded reports whether a backend for which _ and - are the same, as for CGI and
// WSGI, would take name for one of the fields that forward writes.
func foldsToForwarded(name string) bool {
	name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	return strings.HasPrefix(name, "X-Forwarded-") || name == "X-Real-Ip"
}

// forwarded returns the value of a Forwarded field with one element: RFC 7239 section 4.
// text is client as a string.
func forwarded(client netip.Addr, text, host, proto string) string {
	open, end := "for=", ""
	switch {
	case !client.IsValid():
		text = "unknown" // section 6.2
	case !client.Is4():
		open, end = "for=\"[", "]\""
	}
	if host == "" || strings.ContainsAny(host, "\"\\") {
		return open + text + end + ";proto=" + proto
	}
	return open + text + end + ";host=\"" + host + "\";proto=" + proto
}

// withClient returns the context of in. The client's address is added to it if t sends that
// to backends by the PROXY protocol.
func (c ClientIP) withClient(in *http.Request, t http.RoundTripper) context.Context {
	ctx := in.Context()
	if t, ok := t.(*balancer.Transport); !ok || t.ProxyProtocol == 0 {
		return ctx
	}
	from, _ := netip.ParseAddrPort(in.RemoteAddr)
	if addr := c.Addr(in); addr != peer(in) {
		from = netip.AddrPortFrom(addr, 0) // the port is a proxy's
	}
	var to netip.AddrPort
	if local, ok := ctx.Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		to = local.AddrPort()
	}
	return balancer.WithClient(ctx, from, to)
}

// appendHop returns X-Forwarded-For with hop at its end, as a single line.
func appendHop(lines []string, hop string) string {
	if len(lines) == 0 {
		return hop
	}
	return strings.Join(lines, ", ") + ", " + hop
}

// peer returns the address of the other end of r's connection, or the zero Addr if it has
// no IP address.
func peer(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		addr, _ := parseHop(r.RemoteAddr)
		return addr
	}
	return ap.Addr().Unmap().WithZone("")
}

// peerText returns addr, which peer has found in remote, as a string: mostly a part of remote.
func peerText(remote string, addr netip.Addr) string {
	var room [46]byte // for the longest IPv6 address
	text := addr.AppendTo(room[:0])
	if n := len(text); n <= len(remote) && remote[:n] == string(text) {
		return remote[:n]
	}
	return string(text)
}

// parseHop parses one entry of X-Forwarded-For. Some proxies add a port, and some write
// IPv6 addresses in brackets.
func parseHop(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	if len(s) > 1 && s[0] == '[' && s[len(s)-1] == ']' {
		s = s[1 : len(s)-1]
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, false
	}
	return addr.Unmap().WithZone(""), true
}
