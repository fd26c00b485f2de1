package sockets_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/sockets"
)

// both calls f with each network.
func both(t *testing.T, f func(t *testing.T, network string)) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			f(t, network)
		})
	}
}

// Whatever the order in which bytes and the end arrive, and whether a Read waits for them:
// all of them are read.
func TestEndBehindBytes(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, network string) {
		l := sockets.Listen(listen(t, network))
		defer l.Close()
		for i := range 300 {
			c, peer := connect(t, l)
			go func() {
				for range i % 3 {
					peer.Write([]byte("hello"))
				}
				peer.Close()
			}()
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			var got []byte
			for buf := make([]byte, 1+i%20); ; {
				n, err := c.Read(buf)
				if got = append(got, buf[:n]...); err == io.EOF {
					break
				}
				must(t, err)
			}
			if len(got) != 5*(i%3) {
				t.Fatalf("read %q", got)
			}
			if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("behind the end %d, %v", n, err)
			}
			c.Close()
		}
	})
}

// A Read that ends at urgent data, or between messages of a Unix socket that carry
// descriptors, has not emptied the socket.
func TestShortReads(t *testing.T) {
	t.Parallel()
	send := func(t *testing.T, peer net.Conn, f func(fd int) error) {
		raw, err := peer.(syscall.Conn).SyscallConn()
		must(t, err)
		var failed error
		must(t, raw.Control(func(fd uintptr) { failed = f(int(fd)) }))
		must(t, failed)
	}
	for network, send := range map[string]func(t *testing.T, peer net.Conn){
		"tcp": func(t *testing.T, peer net.Conn) {
			send(t, peer, func(fd int) error { return syscall.Sendto(fd, []byte("ab!"), syscall.MSG_OOB, nil) })
			peer.Write([]byte("cd"))
		},
		"unix": func(t *testing.T, peer net.Conn) {
			for _, s := range []string{"ab", "cd"} {
				send(t, peer, func(fd int) error {
					return syscall.Sendmsg(fd, []byte(s), syscall.UnixRights(1), nil, 0)
				})
			}
		},
	} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			for _, waits := range []bool{false, true} {
				c, peer := pair(t, network)
				c.SetReadDeadline(time.Now().Add(10 * time.Second))
				if waits { // so that epoll knows the socket
					go peer.Write([]byte("x"))
					_, err := c.Read(make([]byte, 8))
					must(t, err)
				}
				send(t, peer)
				var got []byte
				for buf := make([]byte, 8); len(got) < 4; {
					n, err := c.Read(buf)
					must(t, err)
					got = append(got, buf[:n]...)
				}
				if string(got) != "abcd" {
					t.Errorf("read %q", got)
				}
			}
		})
	}
}

// A reset ends a Read that waits and one that doesn't, and a Write that waits.
func TestReset(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(c net.Conn, peer net.Conn) error{
		"before": func(c, peer net.Conn) error {
			peer.Close()
			_, err := io.Copy(io.Discard, c)
			return err
		},
		"a Read waits": func(c, peer net.Conn) error {
			time.AfterFunc(10*time.Millisecond, func() { peer.Close() })
			_, err := io.Copy(io.Discard, c)
			return err
		},
		"a Write waits": func(c, peer net.Conn) error {
			time.AfterFunc(10*time.Millisecond, func() { peer.Close() })
			for {
				if _, err := c.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, peer := pair(t, "tcp")
			peer.(*net.TCPConn).SetLinger(0)
			if err := call(c, peer); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%v, want a reset", err)
			}
		})
	}
}

// Many connections, both directions of each at the same time, in pieces of any size.
func TestBothWays(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, network string) {
		l := sockets.Listen(listen(t, network))
		defer l.Close()
		var all sync.WaitGroup
		for range 10 {
			c, peer := connect(t, l)
			for _, end := range [][2]net.Conn{{c, peer}, {peer, c}} {
				want := make([]byte, 1<<20)
				for i := range want {
					want[i] = byte(i * i >> 8)
				}
				all.Go(func() {
					for b := want; len(b) > 0; {
						n := min(len(b), 1+rand.IntN(100_000))
						if _, err := end[0].Write(b[:n]); err != nil {
							t.Error(err)
							return
						}
						b = b[n:]
					}
					end[0].(interface{ CloseWrite() error }).CloseWrite()
				})
				all.Go(func() {
					var got bytes.Buffer
					for buf := make([]byte, 100_000); ; {
						n, err := end[1].Read(buf[:1+rand.IntN(len(buf))])
						if got.Write(buf[:n]); err != nil {
							if err != io.EOF {
								t.Error(err)
							}
							break
						}
					}
					if !bytes.Equal(got.Bytes(), want) {
						t.Errorf("%d bytes came, other ones than were written", got.Len())
					}
				})
			}
		}
		all.Wait()
	})
}

// Two Writes at the same time don't mix.
func TestWritesTakeTurns(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp")
	const size = 1 << 20
	for _, b := range []byte("ab") {
		go c.Write(bytes.Repeat([]byte{b}, size))
	}
	got := make([]byte, 2*size)
	_, err := io.ReadFull(peer, got)
	must(t, err)
	if first := bytes.Count(got[:size], got[:1]); first != size {
		t.Errorf("%d bytes of the first are together, want %d", first, size)
	}
}

// Close ends a Write that waits for another one to end, too: nothing is sent behind half of a
// message.
func TestCloseWhileAWriteWaitsForAnother(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp")
	raw, err := c.SyscallConn()
	must(t, err)
	second := make(chan error, 1)
	must(t, raw.Write(func(uintptr) bool {
		go func() {
			_, err := c.Write([]byte("more"))
			second <- err
		}()
		waits(t, c)
		must(t, c.Close())
		return true
	}))
	if err := <-second; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if b, err := io.ReadAll(peer); len(b) > 0 || err != nil {
		t.Errorf("the peer got %q, %v", b, err)
	}
}

// Take gives the socket away, with all that nobody has read.
func TestTake(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, network string) {
		c, peer := pair(t, network)
		go peer.Write([]byte("x"))
		_, err := c.Read(make([]byte, 1)) // it has waited, perhaps
		must(t, err)
		peer.Write([]byte("hello"))
		fd, alone := c.Take()
		file := os.NewFile(uintptr(fd), "socket")
		defer file.Close()
		if !alone {
			t.Error("somebody else has the descriptor")
		}
		if fd, _ := c.Take(); fd != -1 || !errors.Is(c.Close(), net.ErrClosed) || !errors.Is(c.SetDeadline(time.Time{}), net.ErrClosed) {
			t.Error("it isn't gone")
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write: %v", err)
		}
		buf := make([]byte, 5)
		if _, err := io.ReadFull(file, buf); string(buf) != "hello" || err != nil {
			t.Errorf("%q, %v", buf, err)
		}
	})
}

// A connection of which epoll reports events once only loses none: calls of both directions
// wait again and again, and an event for one of them doesn't hide that for the other.
func TestReportOnce(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, network string) {
		c, peer := pair(t, network)
		c.ReportOnce()
		buf := make([]byte, 1)
		full := make(chan error)
		big := make([]byte, 8<<20) // more than a socket has room for
		go func() {
			_, err := c.Write(big)
			full <- err
		}()
		for range 5 {
			read := make(chan error)
			go func() {
				_, err := io.ReadFull(c, buf)
				read <- err
			}()
			waits(t, c)
			peer.Write([]byte("x"))
			must(t, <-read)
		}
		if n, err := io.CopyN(io.Discard, peer, int64(len(big))); err != nil {
			t.Errorf("%d of %d bytes, %v", n, len(big), err)
		}
		must(t, <-full)
		if fd, _ := c.Take(); fd == -1 {
			t.Error("can't be taken")
		} else {
			syscall.Close(fd)
		}
	})
}

// A descriptor that others may have seen isn't alone: the close of one that lingers would wait.
func TestTakeAlone(t *testing.T) {
	t.Parallel()
	lingering := &net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 1})
		})
	}}
	for _, tt := range []struct {
		name   string
		config *net.ListenConfig
		use    func(c *sockets.Conn) error
		alone  bool
	}{
		{"read and written", &net.ListenConfig{}, func(c *sockets.Conn) error { _, err := c.Write([]byte("x")); return err }, true},
		{"lingers", &net.ListenConfig{}, func(c *sockets.Conn) error { return c.SetLinger(1) }, false},
		{"lingers by its listener", lingering, func(*sockets.Conn) error { return nil }, false},
		{"was seen", &net.ListenConfig{}, func(c *sockets.Conn) error {
			raw, err := c.SyscallConn()
			return errors.Join(err, raw.Control(func(uintptr) {}))
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, err := tt.config.Listen(t.Context(), "tcp", "127.0.0.1:0")
			must(t, err)
			l = sockets.Listen(l)
			defer l.Close()
			for range 2 { // the first one is accepted by package net
				accepted, _ := connect(t, l)
				c := accepted.(*sockets.Conn)
				must(t, tt.use(c))
				fd, alone := c.Take()
				if alone != tt.alone {
					t.Errorf("alone: %v", alone)
				}
				must(t, syscall.Close(fd))
			}
		})
	}
}

// A connection that somebody uses, or has closed, can't be taken, and is closed.
func TestTakeTooLate(t *testing.T) {
	t.Parallel()
	c, _ := pair(t, "tcp")
	read := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	waits(t, c)
	if fd, _ := c.Take(); fd != -1 {
		t.Errorf("took %d", fd)
	}
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
}

// waits returns when a Read of c is under way: another deadline would end it then.
func waits(t *testing.T, c net.Conn) {
	t.Helper()
	time.Sleep(20 * time.Millisecond) // nothing outside tells; too short, the test shows less
}

// With SetLinger(0), Close resets the connection.
func TestLinger(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp")
	must(t, c.SetLinger(0))
	must(t, c.Close())
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}
