package affinity

import (
	"fmt"
	"net/http"
	"net/netip"
)

// ClientAddr is a [Key]: the client's address, or the network that it is in.
//
// All clients behind one NAT or forward proxy have the same key, and a client
// that changes its network gets another one.
type ClientAddr struct {
	// V4 and V6 are how many leading bits of the address count: V4 for IPv4,
	// where 0 means 32, and V6 for IPv6, where 0 means 64, since one host uses
	// many addresses of one /64.
	V4, V6 int

	// Addr returns the address of the client that sent the request. If nil, a
	// gateway sets it to its own judgement. Without a gateway the address is
	// that of the peer, r.RemoteAddr.
	Addr func(*http.Request) netip.Addr
}

// Key returns the client's network in CIDR notation. It returns "" if the
// address is not known, as for a client on a Unix socket.
func (c *ClientAddr) Key(r *http.Request) string {
	get := c.Addr
	if get == nil {
		get = peer
	}
	addr := get(r).Unmap() // Prefix removes the zone
	bits := 64
	switch {
	case addr.Is4() && c.V4 != 0:
		bits = c.V4
	case addr.Is4():
		bits = 32
	case c.V6 != 0:
		bits = c.V6
	}
	// An error means no address, or bits that Validate refuses.
	network, err := addr.Prefix(bits)
	if err != nil || !network.IsValid() {
		return ""
	}
	return network.String()
}

// Trust sets Addr if it is nil.
func (c *ClientAddr) Trust(addr func(*http.Request) netip.Addr, _ func(*http.Request) bool) {
	if c.Addr == nil {
		c.Addr = addr
	}
}

// Validate refuses a V4 outside of 0 to 32 and a V6 outside of 0 to 128.
func (c *ClientAddr) Validate() error {
	if c.V4 < 0 || c.V4 > 32 || c.V6 < 0 || c.V6 > 128 {
		return fmt.Errorf("affinity: client address: no network of /%d (IPv4) or /%d (IPv6)", c.V4, c.V6)
	}
	return nil
}

// peer returns the address at the other end of the connection.
func peer(r *http.Request) netip.Addr {
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return ap.Addr()
	}
	addr, _ := netip.ParseAddr(r.RemoteAddr) // some middleware removes the port
	return addr
}
