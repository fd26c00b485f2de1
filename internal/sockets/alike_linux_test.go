package sockets_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/sockets"
)

// A halfCloser is what connections of package net have besides [net.Conn].
type halfCloser interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
}

// Whatever is done, the errors are those of package net, to the letter.
func TestErrorsAlike(t *testing.T) {
	t.Parallel()
	raw := func(c halfCloser) syscall.RawConn {
		r, err := c.SyscallConn()
		must(t, err)
		return r
	}
	later := func(f func()) { time.AfterFunc(20*time.Millisecond, f) }
	cases := map[string]func(c halfCloser, peer net.Conn) error{
		"read late": func(c halfCloser, _ net.Conn) error {
			c.SetReadDeadline(time.Unix(1, 0))
			_, err := c.Read(make([]byte, 1))
			return err
		},
		"write late": func(c halfCloser, _ net.Conn) error {
			c.SetDeadline(time.Unix(1, 0))
			_, err := c.Write(make([]byte, 1))
			return err
		},
		"write nothing late": func(c halfCloser, _ net.Conn) error {
			c.SetDeadline(time.Unix(1, 0))
			_, err := c.Write(nil)
			return err
		},
		"read nothing late": func(c halfCloser, _ net.Conn) error {
			c.SetDeadline(time.Unix(1, 0))
			_, err := c.Read(nil)
			return err
		},
		"read nothing": func(c halfCloser, _ net.Conn) error {
			_, err := c.Read(nil)
			return err
		},
		"read the end": func(c halfCloser, peer net.Conn) error {
			peer.Close()
			_, err := c.Read(make([]byte, 1))
			return err
		},
		"read behind CloseRead": func(c halfCloser, peer net.Conn) error {
			err := c.CloseRead()
			_, err2 := c.Read(make([]byte, 1))
			return errors.Join(err, err2)
		},
		"CloseRead while it reads": func(c halfCloser, peer net.Conn) error {
			later(func() { c.CloseRead() })
			_, err := c.Read(make([]byte, 1))
			return err
		},
		"write behind CloseWrite": func(c halfCloser, _ net.Conn) error {
			err := c.CloseWrite()
			_, err2 := c.Write(make([]byte, 1))
			return errors.Join(err, err2)
		},
		"Close while it reads": func(c halfCloser, _ net.Conn) error {
			later(func() { c.Close() })
			_, err := c.Read(make([]byte, 1))
			return err
		},
		"Close while it writes": func(c halfCloser, _ net.Conn) error {
			later(func() { c.Close() })
			return fill(c)
		},
		"reset": func(c halfCloser, peer net.Conn) error {
			c.Write([]byte("x"))
			peer.Close() // has not read
			var err error
			for err == nil {
				_, err = c.Read(make([]byte, 1))
			}
			return err
		},
		"write to nobody": func(c halfCloser, peer net.Conn) error {
			peer.Close()
			c.Read(make([]byte, 1))
			return fill(c)
		},
		"all when closed": func(c halfCloser, _ net.Conn) error {
			r := raw(c)
			c.Close()
			_, read := c.Read(nil)
			_, write := c.Write(nil)
			return errors.Join(read, write, c.Close(), c.CloseRead(), c.CloseWrite(),
				c.SetDeadline(time.Time{}), c.SetReadDeadline(time.Time{}), c.SetWriteDeadline(time.Unix(1, 0)),
				r.Control(func(uintptr) {}), r.Read(func(uintptr) bool { return true }), r.Write(func(uintptr) bool { return true }))
		},
		"raw read late": func(c halfCloser, _ net.Conn) error {
			c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			return raw(c).Read(func(uintptr) bool { return false })
		},
		"raw write late": func(c halfCloser, _ net.Conn) error {
			c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			fill(c)
			return raw(c).Write(func(uintptr) bool { return false })
		},
		"close while it reads raw": func(c halfCloser, _ net.Conn) error {
			later(func() { c.Close() })
			return raw(c).Read(func(uintptr) bool { return false })
		},
	}
	for name, act := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, network string) {
				ours, peer := pair(t, network)
				got := described(act(ours, peer), ours, peer)
				theirs, peer := plain(t, network)
				want := described(act(theirs.(halfCloser), peer), theirs, peer)
				if got != want {
					t.Errorf("%s\nwant %s", got, want)
				}
			})
		})
	}
}

// described returns what can be said about an error but its addresses.
func described(err error, c, peer net.Conn) string {
	s := fmt.Sprint(err)
	for from, to := range map[string]string{c.LocalAddr().String(): "here", peer.LocalAddr().String(): "there"} {
		if len(from) > 1 { // "@" of a nameless one
			s = strings.ReplaceAll(s, from, to)
		}
	}
	var op *net.OpError
	var ne net.Error
	return fmt.Sprint(s, errors.As(err, &op), errors.As(err, &ne) && ne.Timeout(), errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded))
}

// So are the addresses.
func TestAddressesAlike(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"} {
		below, err := net.Listen("tcp", addr)
		if err != nil && strings.HasPrefix(addr, "[") {
			continue // without IPv6
		}
		must(t, err)
		l := sockets.Listen(below)
		defer l.Close()
		for range 3 {
			c, peer := connect(t, l)
			if c.LocalAddr().String() != peer.RemoteAddr().String() || c.RemoteAddr().String() != peer.LocalAddr().String() {
				t.Errorf("%s: %s and %s, want %s and %s", addr, c.LocalAddr(), c.RemoteAddr(), peer.RemoteAddr(), peer.LocalAddr())
			}
		}
	}
}

// A Read of the RawConn waits for what comes after its function was called.
func TestRawRead(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, network string) {
		c, peer := pair(t, network)
		raw, err := c.SyscallConn()
		must(t, err)
		for range 100 {
			calls := 0
			must(t, raw.Read(func(fd uintptr) bool {
				if calls++; calls == 1 {
					go peer.Write([]byte("hello"))
					return false
				}
				return true
			}))
			if n, err := c.Read(make([]byte, 10)); n != 5 || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
			if calls != 2 {
				t.Errorf("%d calls", calls)
			}
		}
	})
}
