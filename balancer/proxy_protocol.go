package balancer

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// proxyHeader returns the header of the PROXY protocol, in version 1 or 2, for a
// connection on behalf of the client in ctx (see [WithClient]). Without a client the header
// says that the connection is this process's own. The format is that of
// https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, sections 2.1 and 2.2.
//
// Both addresses must be of the same family in the header. If the client's is of another
// one than the address that it has reached, as may be behind another proxy, the latter is
// sent as unspecified: the client's address is the one that backends want to know.
func proxyHeader(ctx context.Context, version int) []byte {
	c, ok := ctx.Value(clientKey{}).(client)
	ok = ok && c.from.IsValid()
	from, to := c.from.Addr(), c.to.Addr()
	if ok && from.BitLen() != to.BitLen() {
		to = netip.IPv6Unspecified()
		if from.Is4() {
			to = netip.IPv4Unspecified()
		}
	}
	if version == 1 {
		switch {
		case !ok:
			return []byte("PROXY UNKNOWN\r\n")
		case from.Is4():
			return fmt.Appendf(nil, "PROXY TCP4 %s %s %d %d\r\n", from, to, c.from.Port(), c.to.Port())
		}
		return fmt.Appendf(nil, "PROXY TCP6 %s %s %d %d\r\n", from, to, c.from.Port(), c.to.Port())
	}

	const local, proxy, tcp4, tcp6 = 0x20, 0x21, 0x11, 0x21
	h := []byte("\r\n\r\n\x00\r\nQUIT\n")
	switch {
	case !ok:
		return append(h, local, 0, 0, 0)
	case from.Is4():
		h = append(h, proxy, tcp4, 0, 4+4+2+2)
	default:
		h = append(h, proxy, tcp6, 0, 16+16+2+2)
	}
	h = append(h, from.AsSlice()...)
	h = append(h, to.AsSlice()...)
	h = binary.BigEndian.AppendUint16(h, c.from.Port())
	return binary.BigEndian.AppendUint16(h, c.to.Port())
}
