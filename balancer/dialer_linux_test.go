package balancer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// ports is how many local ports a dialer of these tests has for each source address.
const ports = 4

// A lingerer is a connection of TCP, of package net or of a Dialer.
type lingerer interface{ SetLinger(seconds int) error }

// newDialer returns a dialer whose sockets may use a few ports only, so that
// what happens at tens of thousands of connections happens soon.
func newDialer(t *testing.T, localAddrs ...string) *balancer.Dialer {
	t.Helper()
	var low, high int
	system, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	must(t, err)
	_, err = fmt.Sscan(string(system), &low, &high)
	must(t, err)
	// The highest ones: listeners on port 0 take theirs from the lower half.
	low = high - ports + 1
	d := &balancer.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		const ipLocalPortRange = 51 // ip(7); Linux 6.3
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipLocalPortRange, low|high<<16)
		})
		return errors.Join(err, failed)
	}}
	for _, s := range localAddrs {
		d.LocalAddrs = append(d.LocalAddrs, netip.MustParseAddr(s))
	}
	probe, err := (&balancer.Dialer{Control: d.Control}).DialContext(t.Context(), "tcp", holding(t, "tcp4", "127.0.0.1:0"))
	if errors.Is(err, syscall.ENOPROTOOPT) {
		t.Skip("needs IP_LOCAL_PORT_RANGE, which Linux has since 6.3")
	}
	must(t, err)
	probe.(lingerer).SetLinger(0)
	probe.Close()
	return d
}

// holding returns the address of a listener that keeps its connections open.
func holding(t *testing.T, network, addr string) string {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil && network == "tcp6" {
		t.Skip("needs IPv6")
	}
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(io.Discard, c)
			}()
		}
	}()
	return l.Addr().String()
}

// fill dials until it fails, and counts connections by source address.
func fill(t *testing.T, d *balancer.Dialer, addr string) (from map[string]int, err error) {
	t.Helper()
	from = make(map[string]int)
	for range 100 {
		c, err := d.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			return from, err
		}
		c.(lingerer).SetLinger(0) // or its ports stay taken for a minute
		t.Cleanup(func() { c.Close() })
		host, _, _ := net.SplitHostPort(c.LocalAddr().String())
		from[host]++
	}
	t.Fatal("the ports don't end")
	return nil, nil
}

// The limit of one source address, and that more of them lift it.
func TestPortsRunOut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		localAddrs []string
		want       []string // the addresses that all ports are used of
	}{
		{"no LocalAddrs", nil, []string{"127.0.0.1"}},
		{"one", []string{"127.0.0.2"}, []string{"127.0.0.2"}},
		{"three", []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"}, []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"}},
		{"two families", []string{"::1", "127.0.0.2", "::ffff:127.0.0.3"}, []string{"127.0.0.2", "127.0.0.3"}},
		{"one isn't ours", []string{"127.0.0.2", "192.0.2.1"}, []string{"127.0.0.2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDialer(t, tt.localAddrs...)
			// Twice: a port is taken towards one backend, not towards all.
			for range 2 {
				from, err := fill(t, d, holding(t, "tcp4", "127.0.0.1:0"))
				for _, addr := range tt.want {
					if from[addr] != ports {
						t.Errorf("%d connections from %s, want %d", from[addr], addr, ports)
					}
				}
				if len(from) != len(tt.want) {
					t.Errorf("connections from %v, want %v", from, tt.want)
				}
				if !errors.Is(err, syscall.EADDRNOTAVAIL) || tt.name != "one isn't ours" &&
					!(strings.Contains(err.Error(), "more LocalAddrs") && strings.Contains(err.Error(), "ip_local_port_range")) {
					t.Errorf("the error names no cure: %v", err)
				}
			}
		})
	}
}

func TestSourceAddressesTakeTurns(t *testing.T) {
	t.Parallel()
	d := &balancer.Dialer{LocalAddrs: []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")}}
	addr := holding(t, "tcp4", "127.0.0.1:0")
	from := make(map[string]int)
	for range 6 {
		c, err := d.DialContext(t.Context(), "tcp", addr)
		must(t, err)
		defer c.Close()
		from[c.LocalAddr().(*net.TCPAddr).IP.String()]++
	}
	if from["127.0.0.2"] != 3 || from["127.0.0.3"] != 3 {
		t.Errorf("connections from %v, want 3 from each", from)
	}
}

func TestSourceAddressOfTheFamily(t *testing.T) {
	t.Parallel()
	d := &balancer.Dialer{LocalAddrs: []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.IPv6Loopback()}}
	addr := holding(t, "tcp6", "[::1]:0")
	for range 2 {
		c, err := d.DialContext(t.Context(), "tcp", addr)
		must(t, err)
		c.Close()
	}
	d = &balancer.Dialer{LocalAddrs: d.LocalAddrs[:1]}
	if _, err := d.DialContext(t.Context(), "tcp", addr); err == nil || !strings.Contains(err.Error(), "127.0.0.2") {
		t.Errorf("from IPv4 to IPv6: %v", err)
	}
	// A name may have addresses of both families, and a server on one of them.
	_, port, _ := net.SplitHostPort(holding(t, "tcp4", "127.0.0.1:0"))
	d = &balancer.Dialer{LocalAddrs: []netip.Addr{netip.IPv6Loopback(), netip.MustParseAddr("127.0.0.2")}}
	for range 2 {
		c, err := d.DialContext(t.Context(), "tcp", "localhost:"+port)
		must(t, err)
		c.Close()
	}
}

func TestRefusalIsNotTriedFromElsewhere(t *testing.T) {
	t.Parallel()
	sockets := 0
	d := &balancer.Dialer{
		LocalAddrs: []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")},
		Control:    func(string, string, syscall.RawConn) error { sockets++; return nil },
	}
	_, err := d.DialContext(t.Context(), "tcp", "127.0.0.1:1")
	if !errors.Is(err, syscall.ECONNREFUSED) || sockets != 1 {
		t.Errorf("%v after %d attempts, want a refusal after one", err, sockets)
	}
}

// An address that is none leaves the choice to the system.
func TestZeroSourceAddress(t *testing.T) {
	t.Parallel()
	d := &balancer.Dialer{LocalAddrs: make([]netip.Addr, 1)}
	c, err := d.DialContext(t.Context(), "tcp", holding(t, "tcp4", "127.0.0.1:0"))
	must(t, err)
	c.Close()
}

// Where one family has no ports left, the other one's refusal says nothing.
func TestPortsRunOutOfOneFamily(t *testing.T) {
	t.Parallel()
	_, port, _ := net.SplitHostPort(holding(t, "tcp4", "127.0.0.1:0"))
	d := newDialer(t, "127.0.0.2", "::1")
	for range 2 { // whichever is first
		if _, err := fill(t, d, "localhost:"+port); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("%v, want that no port is left", err)
		}
	}
}

// But where one address has none left and the backend refuses another one, it refuses.
func TestPortsRunOutAndTheBackendRefuses(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	d := newDialer(t, "127.0.0.2")
	from, _ := fill(t, d, l.Addr().String())
	for range from["127.0.0.2"] { // others on this machine may have some of the ports
		c, err := l.Accept()
		must(t, err)
		defer c.Close()
	}
	l.Close()
	d.LocalAddrs = append(d.LocalAddrs, netip.MustParseAddr("127.0.0.3"))
	for range 2 {
		if _, err := d.DialContext(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v, want a refusal", err)
		}
	}
}

// Unlike that of a TCP socket, a Unix socket's full queue refuses at once. It is to
// be waited for.
func TestFullQueueOfAUnixSocket(t *testing.T) {
	t.Parallel()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	file := os.NewFile(uintptr(fd), "queue")
	defer file.Close()
	path := filepath.Join(t.TempDir(), "app.sock")
	must(t, syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}))
	must(t, syscall.Listen(fd, 0)) // has room for one
	l, err := net.FileListener(file)
	must(t, err)
	defer l.Close()

	s := reach(t, "unix://"+path)
	first, err := s.Connect(t.Context(), s.Backend)
	must(t, err)
	defer first.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	attempts := 0
	d := &balancer.Dialer{Control: func(string, string, syscall.RawConn) error {
		if attempts++; attempts == 3 {
			cancel()
		}
		return nil
	}}
	if _, err := d.DialContext(ctx, "unix", path); err == nil || attempts != 3 {
		t.Errorf("%v after %d attempts, want 3 until the context ended", err, attempts)
	}

	d.Control = func(string, string, syscall.RawConn) error {
		if attempts++; attempts == 5 {
			c, err := l.Accept()
			if err == nil {
				c.Close()
			}
			return err
		}
		return nil
	}
	second, err := d.DialContext(t.Context(), "unix", path)
	must(t, err)
	second.Close()
}

func TestForeignSourceAddress(t *testing.T) {
	t.Parallel()
	d := &balancer.Dialer{LocalAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	_, err := d.DialContext(t.Context(), "tcp", "127.0.0.1:1")
	if err == nil || !strings.Contains(err.Error(), "192.0.2.1") || !strings.Contains(err.Error(), "address of this machine") {
		t.Errorf("the error doesn't name what is wrong: %v", err)
	}
}

// The backend is not to blame when this machine has no port left.
func TestPortsRunOutAndHealthStays(t *testing.T) {
	t.Parallel()
	d := newDialer(t, "127.0.0.2")
	addr := holding(t, "tcp4", "127.0.0.1:0")
	dials := make(chan error, 1)
	tr := &balancer.Transport{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, addr)
		select {
		case dials <- err:
		default:
		}
		return c, err
	}}
	_, err := fill(t, d, addr)
	b, err2 := balancer.NewBackend("a", "http://"+addr, 1)
	must(t, err2)
	p, err2 := balancer.NewPool(&balancer.Options{Transport: tr, Check: &balancer.Check{Interval: 10 * time.Millisecond, Fall: 1}}, b)
	must(t, err2)
	_, connect := tr.Connect(t.Context(), b)
	fails(t, connect, false, syscall.EADDRNOTAVAIL)
	<-dials

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	for range 3 {
		p.Report(b, err)
		if err := <-dials; !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("a check had a port: %v", err)
		}
	}
	cancel()
	must(t, <-done)
	if b.Health() != balancer.Well {
		t.Errorf("health %v, want well", b.Health())
	}
}
