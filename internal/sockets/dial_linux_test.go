package sockets_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/sockets"
)

// What is dialed is connected, has the options of package net, and is a Conn where the
// address is given in numbers.
func TestDial(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		network, listen string
		name            string // to dial with the port, if it isn't what is listened on
		dialer          net.Dialer
		own             bool
	}{
		"IPv4":        {network: "tcp", listen: "127.0.0.1:0", own: true},
		"IPv6":        {network: "tcp", listen: "[::1]:0", own: true},
		"elsewhere":   {network: "tcp", listen: net.JoinHostPort(ownAddress(), "0"), own: true},
		"mapped IPv4": {network: "tcp", listen: "127.0.0.1:0", name: "::ffff:127.0.0.1", own: true},
		"from":        {network: "tcp", listen: "127.0.0.1:0", dialer: net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}, own: true},
		"from nobody": {network: "tcp", listen: "127.0.0.1:0", dialer: net.Dialer{LocalAddr: &net.TCPAddr{}}},
		"unspecified": {network: "tcp", listen: "127.0.0.1:0", name: "0.0.0.0"},
		"name":        {network: "tcp", listen: "127.0.0.1:0", name: "localhost"},
		"unix":        {network: "unix", listen: filepath.Join(t.TempDir(), "s"), own: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen(tt.network, tt.listen)
			if err != nil && strings.HasPrefix(tt.listen, "[") {
				t.Skip("needs IPv6")
			}
			must(t, err)
			defer l.Close()
			addr := l.Addr().String()
			if tt.name != "" {
				_, port, _ := net.SplitHostPort(addr)
				addr = net.JoinHostPort(tt.name, port)
			}
			c, err := sockets.Dial(t.Context(), &tt.dialer, tt.network, addr)
			must(t, err)
			defer c.Close()
			peer, err := l.Accept()
			must(t, err)
			if _, own := c.(*sockets.Conn); own != tt.own {
				t.Errorf("got a %T", c)
			}
			theirs, err := tt.dialer.DialContext(t.Context(), tt.network, addr)
			must(t, err)
			defer theirs.Close()
			if got, want := options(t, c), options(t, theirs); got != want {
				t.Errorf("options %v, want %v", got, want)
			}
			if c.RemoteAddr().String() != theirs.RemoteAddr().String() || c.LocalAddr().String() != peer.RemoteAddr().String() && tt.network != "unix" {
				t.Errorf("from %s to %s", c.LocalAddr(), c.RemoteAddr())
			}
			go func() {
				io.Copy(peer, peer)
				peer.Close()
			}()
			_, err = c.Write([]byte("hello"))
			must(t, err)
			must(t, c.(interface{ CloseWrite() error }).CloseWrite())
			if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

// ownAddress returns an address of this machine that isn't one of the loopback interface, if
// there is one: what is dialed there is waited for.
func ownAddress() string {
	all, _ := net.InterfaceAddrs()
	for _, addr := range all {
		if n, ok := addr.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}

// Linux connects a socket to itself where nobody listens on its own port. That is no success,
// and is tried again.
func TestDialItself(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l.Close()
	tries := 0
	d := net.Dialer{LocalAddr: l.Addr(), Control: func(_, _ string, c syscall.RawConn) error {
		tries++
		return c.Control(func(fd uintptr) {
			_ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1}) // frees the port at once
		})
	}}
	if c, err := sockets.Dial(t.Context(), &d, "tcp", l.Addr().String()); err == nil {
		c.Close()
	}
	if tries != 3 {
		t.Errorf("tried %d times, want 3", tries)
	}
}

// Errors are those of package net.
func TestDialErrors(t *testing.T) {
	t.Parallel()
	full := fullListener(t)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	within := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	soon := func() context.Context {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		return ctx
	}
	always := func() context.Context { return t.Context() }
	for name, tt := range map[string]struct {
		ctx     func() context.Context
		dialer  net.Dialer
		network string
		addr    string
	}{
		"refused":           {always, net.Dialer{}, "tcp", "127.0.0.1:1"},
		"refused elsewhere": {always, net.Dialer{}, "tcp", net.JoinHostPort(ownAddress(), "1")},
		"canceled":          {func() context.Context { return canceled }, net.Dialer{}, "tcp", "127.0.0.1:1"},
		"canceled, unix":    {func() context.Context { return canceled }, net.Dialer{}, "unix", "/nowhere"},
		"canceled, later":   {soon, net.Dialer{}, "tcp", full},
		"late":              {within, net.Dialer{}, "tcp", full},
		"nowhere":           {always, net.Dialer{}, "unix", "/nowhere/s"},
		"a long path":       {always, net.Dialer{}, "unix", "/" + strings.Repeat("x", 200)},
		"no path":           {always, net.Dialer{}, "unix", ""},
		"not ours":          {always, net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}}, "tcp", "127.0.0.1:1"},
		"of another kind":   {always, net.Dialer{LocalAddr: &net.UnixAddr{}}, "tcp", "127.0.0.1:1"},
		"of another kind2":  {always, net.Dialer{LocalAddr: &net.TCPAddr{}}, "unix", "/nowhere"},
		"two families":      {always, net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}, "tcp", "[::1]:1"},
		"no port":           {always, net.Dialer{}, "tcp", "127.0.0.1"},
		"port 0":            {always, net.Dialer{}, "tcp", "127.0.0.1:0"},
		"unreachable":       {always, net.Dialer{}, "tcp", "255.255.255.255:1"},
		"no such port":      {always, net.Dialer{}, "tcp", "127.0.0.1:70000"},
		"Control": {always, net.Dialer{Control: func(network, addr string, c syscall.RawConn) error {
			fails := errors.New("")
			return fmt.Errorf("%s %s %v %w", network, addr, c.Control(func(uintptr) {}), fails)
		}}, "tcp", "[::1]:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, got := sockets.Dial(tt.ctx(), &tt.dialer, tt.network, tt.addr)
			_, want := tt.dialer.DialContext(tt.ctx(), tt.network, tt.addr)
			say := func(err error) string {
				var op *net.OpError
				var ne net.Error
				return fmt.Sprint(err, errors.As(err, &op), errors.As(err, &ne) && ne.Timeout(), errors.Is(err, context.Canceled),
					errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EADDRNOTAVAIL))
			}
			if say(got) != say(want) || got == nil {
				t.Errorf("%s, want %s", say(got), say(want))
			}
		})
	}
}

// fullListener returns the address of a listener whose queue is full.
func fullListener(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { syscall.Close(fd) })
	must(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, syscall.Listen(fd, 0))
	sa, err := syscall.Getsockname(fd)
	must(t, err)
	addr := fmt.Sprint("127.0.0.1:", sa.(*syscall.SockaddrInet4).Port)
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr); err == nil {
			t.Cleanup(func() { c.Close() })
		}
	}
	return addr
}
