package sockets_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/sockets"
)

// Connections have the options that the listener of package net gives to its own, whatever
// its configuration says.
func TestOptionsAlike(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]*net.ListenConfig{
		"default":       {},
		"no keep-alive": {KeepAlive: -1},
		"keep-alive":    {KeepAlive: 7 * time.Second},
		"keep-alive of its own": {KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 3 * time.Second, Interval: 4 * time.Second, Count: 5,
		}},
		"of its socket": {KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) {
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1)
				syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 77)
			})
		}},
	} {
		for _, multipath := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", multipath ", multipath), func(t *testing.T) {
				t.Parallel()
				config := *config
				config.SetMultipathTCP(multipath)
				l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
				must(t, err)
				theirs, _ := connect(t, l)
				want := options(t, theirs)
				l = sockets.Listen(l)
				defer l.Close()
				for i := range 4 {
					c, _ := connect(t, l)
					if got := options(t, c); got != want {
						t.Errorf("connection %d: %v, want %v", i, got, want)
					}
				}
			})
		}
	}
}

// Connections that were there before the first Accept get the options one by one. Those that
// come later have them from the listening socket, with what somebody has changed there since.
func TestOptionsOfTheQueue(t *testing.T) {
	t.Parallel()
	below := listen(t, "tcp").(*net.TCPListener)
	theirs, _ := connect(t, below)
	want := options(t, theirs)
	l := sockets.Listen(below)
	defer l.Close()
	accepted := func() net.Conn {
		c, err := l.Accept()
		must(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		must(t, err)
		defer c.Close()
	}
	for i := range 3 {
		if got := options(t, accepted()); got != want {
			t.Errorf("connection %d: %v, want %v", i, got, want)
		}
	}
	connect(t, l) // shows that they are passed on
	raw, err := below.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 77) }))
	c, _ := connect(t, l)
	want[2] = 77
	if got := options(t, c); got != want {
		t.Errorf("the last connection: %v, want %v, as passed on", got, want)
	}
}

// options returns those options of a socket that package net sets.
func options(t *testing.T, c net.Conn) (o [5]int) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		o[0], _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
		for i, name := range []int{syscall.TCP_NODELAY, syscall.TCP_KEEPIDLE, syscall.TCP_KEEPINTVL, syscall.TCP_KEEPCNT} {
			o[i+1], _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, name)
		}
	}))
	return o
}

// What ends an Accept ends it before the first connection, which is accepted in another way,
// and afterwards.
func TestAcceptEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		do   func(l, below net.Listener)
		want error
	}{
		"deadline": {func(l, _ net.Listener) {
			l.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now().Add(10 * time.Millisecond))
		}, os.ErrDeadlineExceeded},
		"close":       {func(l, _ net.Listener) { l.Close() }, net.ErrClosed},
		"close below": {func(_, below net.Listener) { below.Close() }, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, network string) {
				for connections := range 3 {
					below := listen(t, network)
					l := sockets.Listen(below)
					defer l.Close()
					for range connections {
						c, _ := connect(t, l)
						if _, ours := c.(*sockets.Conn); !ours {
							t.Fatalf("accepted a %T", c)
						}
					}
					time.AfterFunc(10*time.Millisecond, func() { end.do(l, below) })
					_, err := l.Accept()
					var op *net.OpError
					if !errors.Is(err, end.want) || !errors.As(err, &op) || op.Op != "accept" || op.Net != network || op.Addr != l.Addr() {
						t.Errorf("behind %d connections: %v", connections, err)
					}
					if name == "deadline" {
						l.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Time{})
						connect(t, l)
					}
				}
			})
		})
	}
}

// Other listeners stay as they are.
func TestListenersOfOthers(t *testing.T) {
	t.Parallel()
	below := listen(t, "tcp")
	defer below.Close()
	own := struct{ net.Listener }{below}
	if l := sockets.Listen(own); l != own {
		t.Errorf("got a %T", l)
	}
	below.Close()
	if l := sockets.Listen(below); l != below {
		t.Errorf("of a closed one got a %T", l)
	}
}
