package balancer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A Dialer opens connections to backends, from several source addresses if it is
// given some. Two connections differ in an address or a port, so that one source
// address holds no more of them to one backend's address than there are local
// ports: 28,232 as Linux comes, and 64,512 where net.ipv4.ip_local_port_range is
// as wide as it may be. Each source address more holds as many again.
//
//	dialer := &balancer.Dialer{LocalAddrs: addrs}
//	transport := &balancer.Transport{Dial: dialer.DialContext}
//
// The zero value is ready; fields must not be changed after the first use.
type Dialer struct {
	// LocalAddrs are addresses of this machine, used in turn. Those of another
	// family than the backend's address, IPv4 or IPv6, are passed over, and a
	// backend's name that has addresses of both is tried with both. None, or a
	// zero one: the system chooses.
	LocalAddrs []netip.Addr

	// Control is called for each socket before it is bound, as that of a
	// [net.Dialer].
	Control func(network, address string, c syscall.RawConn) error

	next atomic.Uint32
}

// DialContext connects to addr as [net.Dialer.DialContext] does. When a source
// address has no port left, it goes on to the next one; when none has, the error
// says what helps, and wraps EADDRNOTAVAIL: it is no fault of the backend, and
// isn't counted as one. A Unix socket whose queue is full refuses at once, unlike
// one of TCP: it is waited for until ctx ends. It may be called concurrently.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if len(d.LocalAddrs) == 0 || !strings.HasPrefix(network, "tcp") {
		conn, err := d.dial(ctx, network, addr)
		return conn, d.explained(err, addr)
	}
	var failure error
	var failed netip.Addr // of the family in which the backend can't be reached
	var full netip.Addr   // the last that had no port left
	n := uint32(len(d.LocalAddrs))
	for i, first := uint32(0), d.next.Add(1)%n; i < n; i++ {
		source := d.LocalAddrs[(first+i)%n].Unmap()
		if failed.IsValid() && source.BitLen() == failed.BitLen() {
			continue
		}
		dialer := &net.Dialer{
			LocalAddr: &net.TCPAddr{IP: source.AsSlice(), Zone: source.Zone()},
			Control:   d.control,
		}
		conn, err := dialer.DialContext(ctx, network, addr)
		switch {
		case err == nil:
			return conn, nil
		case errors.As(err, new(*net.AddrError)): // the family doesn't fit
			if failure == nil {
				failure = err
			}
		case exhausted(err):
			failure, full = err, source
		default:
			failed = source
			// A refusal of the one family doesn't make the backend guilty of
			// what the other one lacks here.
			if !full.IsValid() || full.BitLen() == source.BitLen() {
				failure = err
			}
		}
	}
	return nil, d.explained(failure, addr)
}

// dial connects from whatever address, and waits for a Unix socket that has no
// room in its queue.
func (d *Dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := &net.Dialer{Control: d.Control}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		conn, err := dialer.DialContext(ctx, network, addr)
		if network != "unix" || !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(wait):
		}
	}
}

// control lets the kernel choose the port no sooner than it knows the backend's
// address: a port chosen at bind is taken for all backends at once.
func (d *Dialer) control(network, address string, c syscall.RawConn) error {
	if err := c.Control(bindWithoutPort); err != nil {
		return err
	}
	if d.Control != nil {
		return d.Control(network, address, c)
	}
	return nil
}

// explained adds to an error what would help.
func (d *Dialer) explained(err error, addr string) error {
	var call *os.SyscallError
	switch {
	case err == nil || !exhausted(err):
		return err
	case errors.As(err, &call) && call.Syscall == "bind" && errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: every one of LocalAddrs has to be an address of this machine", err)
	}
	return fmt.Errorf("%w: no local port is left to reach %s (from %d LocalAddrs): "+
		"give the Dialer more LocalAddrs, the system a wider ip_local_port_range, or the backend more addresses", err, addr, len(d.LocalAddrs))
}

// exhausted reports whether a dial failed for want of a local port. Linux says
// EADDRNOTAVAIL at connect; where bind chooses the port it may be EADDRINUSE.
func exhausted(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EADDRINUSE)
}
