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

	"github.com/limpet-go/limpet/internal/sockets"
)

// A Dialer opens connections to backends, from several source addresses if LocalAddrs
// has some. Two connections have to differ in an address or a port. So from one source
// address to one address of a backend there can be no more connections than there are
// local ports: 28,232 by Linux's default, and 64,512 with the widest
// net.ipv4.ip_local_port_range. Each further source address allows as many again.
//
//	dialer := &balancer.Dialer{LocalAddrs: addrs}
//	transport := &balancer.Transport{Dial: dialer.DialContext}
//
// The zero value is ready; fields must not be changed after the first use.
type Dialer struct {
	// LocalAddrs are addresses of this machine, which are used in turn. An address of
	// another family (IPv4 or IPv6) than the backend's is passed over. If the backend's
	// name has addresses of both families, both are tried. None, or a zero address: the
	// system chooses.
	LocalAddrs []netip.Addr

	// Control is called for each socket before it is bound, as Control of a
	// [net.Dialer] is.
	Control func(network, address string, c syscall.RawConn) error

	next atomic.Uint32
}

// DialContext connects to addr as [net.Dialer.DialContext] does. On Linux, a connection to a
// Unix socket, or to an address of TCP in numbers, is of another type than that of package
// net, which needs fewer system calls. It has the same addresses, errors and methods CloseRead,
// CloseWrite, SetLinger and SyscallConn, but one that nobody closes stays open.
//
// When a source address has no port left DialContext tries the next one. When none has, the
// error says what helps and wraps EADDRNOTAVAIL; it doesn't count as a failure of the backend.
//
// A Unix socket whose queue is full refuses a connection at once, where TCP would wait.
// DialContext waits for room until ctx ends. It may be called concurrently.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if len(d.LocalAddrs) == 0 || !strings.HasPrefix(network, "tcp") {
		conn, err := d.dial(ctx, network, addr)
		return conn, d.explained(err, addr)
	}
	var failure error
	var failed netip.Addr // the source address of a family in which the backend can't be reached
	var full netip.Addr   // the last source address that had no port left
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
		conn, err := sockets.Dial(ctx, dialer, network, addr)
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
			// If the other family had no port left, report that: it isn't known
			// whether the backend would have answered there.
			if !full.IsValid() || full.BitLen() == source.BitLen() {
				failure = err
			}
		}
	}
	return nil, d.explained(failure, addr)
}

// dial connects from an address that the system chooses. It waits for a Unix socket that
// has no room in its queue.
func (d *Dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := &net.Dialer{Control: d.Control}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		conn, err := sockets.Dial(ctx, dialer, network, addr)
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

// control makes the kernel choose the port at connect, when it knows the backend's
// address. A port that is chosen at bind is taken for all backends at once.
func (d *Dialer) control(network, address string, c syscall.RawConn) error {
	if err := c.Control(bindWithoutPort); err != nil {
		return err
	}
	if d.Control != nil {
		return d.Control(network, address, c)
	}
	return nil
}

// explained adds to an error of having no local port what would help.
func (d *Dialer) explained(err error, addr string) error {
	if err == nil || !exhausted(err) {
		return err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok && call.Syscall == "bind" && errors.Is(err, syscall.EADDRNOTAVAIL) {
		return fmt.Errorf("%w: every one of LocalAddrs has to be an address of this machine", err)
	}
	return fmt.Errorf("%w: no local port is left to reach %s (from %d LocalAddrs): "+
		"give the Dialer more LocalAddrs, the system a wider ip_local_port_range, or the backend more addresses", err, addr, len(d.LocalAddrs))
}

// exhausted reports whether a dial failed because no local port was left. Linux returns
// EADDRNOTAVAIL from connect; where bind chooses the port it may be EADDRINUSE.
func exhausted(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EADDRINUSE)
}
