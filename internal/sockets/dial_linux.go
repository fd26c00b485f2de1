package sockets

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"net/netip"
	"os"
	"sync"
	"syscall"
)

// Dial connects as d does, by a *[Conn] where that is simple: to a Unix socket, and to an
// address of TCP that is given in numbers, specified and without a zone. Whatever else there is
// to do, to look up a name above all, it leaves to d, of which it knows LocalAddr and Control.
func Dial(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
	t, ok := targetOf(ctx, d, network, addr)
	if !ok {
		return d.DialContext(ctx, network, addr)
	}
	// Linux may connect a socket to itself, or find no port though there is one. Package net
	// tries three times, too.
	for tries := 2; ; tries-- {
		c, err := t.dial(ctx, d.Control)
		if err == nil && (tries == 0 || !t.isOf(c)) {
			return c, nil
		}
		if err == nil {
			c.Close()
		} else if tries == 0 || !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return nil, &net.OpError{Op: "dial", Net: network, Source: d.LocalAddr, Addr: t.addr, Err: err}
		}
	}
}

// A target is what to connect to.
type target struct {
	network string // of Dial
	exactly string // the same for a Control function
	family  int
	addr    net.Addr
	to      syscall.Sockaddr
	from    syscall.Sockaddr // nil: any
}

// targetOf reports whether Dial can do without d.
func targetOf(ctx context.Context, d *net.Dialer, network, addr string) (t target, ok bool) {
	if httptrace.ContextClientTrace(ctx) != nil || d.ControlContext != nil {
		return t, false
	}
	switch network {
	case "unix":
		t = target{network, network, syscall.AF_UNIX, &net.UnixAddr{Name: addr, Net: network}, &syscall.SockaddrUnix{Name: addr}, nil}
		return t, d.LocalAddr == nil && addr != ""
	case "tcp":
		ap, err := netip.ParseAddrPort(addr)
		ip := ap.Addr().Unmap()
		if err != nil || ip.Zone() != "" || ip.IsUnspecified() || d.MultipathTCP() {
			return t, false // package net knows which address stands for the unspecified one
		}
		t = target{network: network, exactly: "tcp4", family: syscall.AF_INET,
			addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, ap.Port())), to: sockaddr(ip, int(ap.Port()))}
		if ip.Is6() {
			t.exactly, t.family = "tcp6", syscall.AF_INET6
		}
		local, _ := d.LocalAddr.(*net.TCPAddr)
		if local == nil {
			return t, d.LocalAddr == nil
		}
		from, _ := netip.AddrFromSlice(local.IP)
		from = from.Unmap()
		if from.BitLen() != ip.BitLen() || local.Zone != "" {
			return t, false
		}
		t.from = sockaddr(from, local.Port)
		return t, true
	}
	return t, false
}

func sockaddr(ip netip.Addr, port int) syscall.Sockaddr {
	if ip.Is4() {
		return &syscall.SockaddrInet4{Addr: ip.As4(), Port: port}
	}
	return &syscall.SockaddrInet6{Addr: ip.As16(), Port: port}
}

// isOf reports whether c, which is connected to t, is t itself.
func (t *target) isOf(c *Conn) bool {
	if t.family == syscall.AF_UNIX {
		return false
	}
	from, _ := syscall.Getsockname(c.fd)
	switch to := t.to.(type) {
	case *syscall.SockaddrInet4:
		from, ok := from.(*syscall.SockaddrInet4)
		return ok && from.Port == to.Port && from.Addr == to.Addr
	case *syscall.SockaddrInet6:
		from, ok := from.(*syscall.SockaddrInet6)
		return ok && from.Port == to.Port && from.Addr == to.Addr
	}
	return false
}

// dial connects to t once.
func (t *target) dial(ctx context.Context, control func(network, addr string, c syscall.RawConn) error) (*Conn, error) {
	if ctx.Err() != nil {
		return nil, &endedError{ctx.Err()}
	}
	fd, err := syscall.Socket(t.family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c := newConn(fd, t.network, t.addr)
	c.in.ready.Store(false) // a Read need not look first: the other end waits for what we say, most often
	if err := t.connect(ctx, c, control); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (t *target) connect(ctx context.Context, c *Conn, control func(network, addr string, c syscall.RawConn) error) error {
	if t.family == syscall.AF_INET6 {
		_ = syscall.SetsockoptInt(c.fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 0)
	}
	if control != nil {
		if err := control(t.exactly, t.addr.String(), rawConn{c}); err != nil {
			return err
		}
	}
	if t.from != nil {
		if err := syscall.Bind(c.fd, t.from); err != nil {
			return os.NewSyscallError("bind", err)
		}
	}
	if err := c.connect(ctx, t.to); err != nil {
		return err
	}
	if t.family != syscall.AF_UNIX {
		setDefaults(c.fd)
	}
	return nil
}

// connect connects a socket, unless ctx ends before.
func (c *Conn) connect(ctx context.Context, to syscall.Sockaddr) error {
	s := &c.out
	if err := c.begin(s); err != nil {
		return err
	}
	defer c.end(s)
	s.ready.Store(false)
	err := tryConnect(c.fd, to)
	if err == errUnderWay && isLoopback(to) {
		err = tryConnect(c.fd, to) // the first call has done all there is to do, but never says so
	}
	if err == errUnderWay {
		err = c.awaitConnection(ctx, to)
	}
	s.ready.Store(err == nil)
	return err
}

// awaitConnection returns when a connection that is under way is made or has failed.
func (c *Conn) awaitConnection(ctx context.Context, to syscall.Sockaddr) error {
	stop := context.AfterFunc(ctx, func() { c.close() })
	err := c.wait(&c.out, syscall.EPOLLOUT)
	for err == nil && c.eager.Load() { // else epoll has reported nothing but room to write: the connection is made
		c.out.ready.Store(false)
		if err = tryConnect(c.fd, to); err != errUnderWay {
			break
		}
		err = c.wait(&c.out, syscall.EPOLLOUT)
	}
	if !stop() {
		return &endedError{ctx.Err()}
	}
	return err
}

// errUnderWay says that a connection is neither made nor has failed.
var errUnderWay = os.NewSyscallError("connect", syscall.EINPROGRESS)

// tryConnect begins to connect a socket. Further calls tell what has become of it.
func tryConnect(fd int, to syscall.Sockaddr) error {
	switch err := connect(fd, to); err {
	case nil, syscall.EISCONN:
		return nil
	case syscall.EINPROGRESS, syscall.EALREADY, syscall.EINTR:
		return errUnderWay
	default:
		return os.NewSyscallError("connect", err)
	}
}

// isLoopback reports whether an address is one of the loopback interface.
func isLoopback(to syscall.Sockaddr) bool {
	switch to := to.(type) {
	case *syscall.SockaddrInet4:
		return to.Addr[0] == 127
	case *syscall.SockaddrInet6:
		return netip.AddrFrom16(to.Addr).IsLoopback()
	}
	return false
}

// An endedError is a context's error in the words of package net.
type endedError struct{ cause error }

func (e *endedError) Error() string {
	if e.Timeout() {
		return "i/o timeout"
	}
	return "operation was canceled"
}

func (e *endedError) Unwrap() error   { return e.cause }
func (e *endedError) Timeout() bool   { return errors.Is(e.cause, context.DeadlineExceeded) }
func (e *endedError) Temporary() bool { return e.Timeout() }

// wanted are the options of a TCP connection by a net.Dialer, as of Go 1.23.
var wanted = options{1, 1, 15, 15, 9}

// given are those that a socket of this system has without being asked, which may be all
// but TCP_NODELAY.
var given = sync.OnceValue(func() (o options) {
	if fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err == nil {
		o, _ = optionsOf(fd)
		syscall.Close(fd)
	}
	return o
})

// setDefaults gives a socket the options that are wanted.
func setDefaults(fd int) {
	given := given()
	for i, n := range names {
		if given[i] != wanted[i] {
			setOption(fd, n.level, n.name, wanted[i])
		}
	}
}
