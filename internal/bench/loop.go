//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"time"
)

// A loop serves connections on 127.0.0.1 from one goroutine. Load generator and
// backends share a core, and what they need for themselves the gateway waits for:
// an epoll loop needs half of what goroutines with a net.Conn each do, and bears
// ten thousand connections.
type loop struct {
	epoll  int
	conns  []*conn // by descriptor
	events []syscall.EpollEvent
	buf    []byte // what is being read, for one call of received
	plain  []byte // the same without TLS
}

// A conn is one connection of a loop, or its listener.
type conn struct {
	loop   *loop
	fd     int
	closed bool
	out    [][]byte // not yet written
	ready  func()   // instead of received: for listeners and timers
	secure *secure  // nil without TLS

	// received is told what came. The bytes are valid during the call. With an
	// error, io.EOF at the end, it is called once, and the connection is closed.
	received func(p []byte, err error)
}

func newLoop() (*loop, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &loop{epoll: fd, events: make([]syscall.EpollEvent, 256), buf: make([]byte, 256<<10), plain: make([]byte, 16<<10)}, nil
}

// close closes all connections, too.
func (l *loop) close() {
	for _, c := range l.conns {
		if c != nil {
			c.close()
		}
	}
	syscall.Close(l.epoll)
}

// add has the loop watch a descriptor, and owns it from then on.
func (l *loop) add(fd int) (*conn, error) {
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
	if err := syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &ev); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	for fd >= len(l.conns) {
		l.conns = append(l.conns, nil)
	}
	c := &conn{loop: l, fd: fd}
	l.conns[fd] = c
	return c, nil
}

func loopback(port int) *syscall.SockaddrInet4 {
	return &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}

// dial connects to a port of 127.0.0.1. It blocks, which is short there.
func (l *loop) dial(port int) (*conn, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	for err = syscall.EINTR; err == syscall.EINTR; {
		err = syscall.Connect(fd, loopback(port))
	}
	if err == nil || err == syscall.EISCONN {
		err = prepare(fd)
	}
	if err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	return l.add(fd)
}

// adopt has the loop serve a duplicate of a socket.
func (l *loop) adopt(fd int) (*conn, error) {
	fd, err := syscall.Dup(fd)
	if err == nil {
		syscall.CloseOnExec(fd)
		if err = prepare(fd); err != nil {
			syscall.Close(fd)
		}
	}
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return l.add(fd)
}

func prepare(fd int) error {
	return errors.Join(syscall.SetNonblock(fd, true), syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1))
}

// listen accepts connections on a free port of 127.0.0.1.
func (l *loop) listen(accept func(*conn)) (port int, err error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	err = errors.Join(syscall.Bind(fd, loopback(0)), syscall.Listen(fd, 4096))
	name, nameErr := syscall.Getsockname(fd)
	if err = errors.Join(err, nameErr); err != nil {
		syscall.Close(fd)
		return 0, os.NewSyscallError("listen", err)
	}
	c, err := l.add(fd)
	if err != nil {
		return 0, err
	}
	c.ready = func() {
		for {
			fd, _, err := syscall.Accept4(c.fd, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			if prepare(fd) != nil {
				syscall.Close(fd)
			} else if c, err := l.add(fd); err == nil {
				accept(c)
			}
		}
	}
	return name.(*syscall.SockaddrInet4).Port, nil
}

// turn waits for events, at most so long, and handles them.
func (l *loop) turn(most time.Duration) error {
	n, err := syscall.EpollWait(l.epoll, l.events, int(most.Milliseconds()))
	if err != nil && err != syscall.EINTR {
		return os.NewSyscallError("epoll_wait", err)
	}
	for _, ev := range l.events[:max(n, 0)] {
		// A connection that came during this turn may have the descriptor of
		// one that went: it then finds nothing to read.
		c := l.conns[ev.Fd]
		switch {
		case c == nil:
		case c.ready != nil:
			c.ready()
		default:
			if ev.Events&syscall.EPOLLOUT != 0 {
				c.flush()
			}
			if ev.Events&^syscall.EPOLLOUT != 0 && !c.closed {
				c.read()
			}
		}
	}
	return nil
}

func (c *conn) read() {
	n, err := syscall.Read(c.fd, c.loop.buf)
	switch {
	case n > 0 && c.secure != nil:
		c.decrypt(c.loop.buf[:n])
	case n > 0:
		c.received(c.loop.buf[:n], nil)
	case err == syscall.EAGAIN || err == syscall.EINTR:
	case err != nil:
		c.fail(os.NewSyscallError("read", err))
	default:
		c.fail(io.EOF)
	}
}

func (c *conn) fail(err error) {
	c.close()
	c.received(nil, err)
}

// send writes p, later what the socket has no room for.
func (c *conn) send(p []byte) {
	if c.secure != nil {
		p = c.encrypt(p)
	}
	if n := c.write(p); n < len(p) {
		c.keep(bytes.Clone(p[n:]))
	}
}

// sendShared is send for bytes that never change.
func (c *conn) sendShared(p []byte) {
	if n := c.write(p); n < len(p) {
		c.keep(p[n:])
	}
}

func (c *conn) write(p []byte) int {
	if c.closed || len(c.out) > 0 {
		return 0
	}
	n, _ := syscall.Write(c.fd, p) // reading tells what is wrong
	return max(n, 0)
}

func (c *conn) keep(rest []byte) {
	if c.closed {
		return
	}
	if c.out = append(c.out, rest); len(c.out) == 1 {
		c.watch(syscall.EPOLLIN | syscall.EPOLLOUT)
	}
}

func (c *conn) flush() {
	for len(c.out) > 0 {
		n, _ := syscall.Write(c.fd, c.out[0])
		if c.out[0] = c.out[0][max(n, 0):]; len(c.out[0]) > 0 {
			return
		}
		c.out = c.out[1:]
	}
	c.watch(syscall.EPOLLIN)
}

func (c *conn) watch(events uint32) {
	ev := syscall.EpollEvent{Events: events, Fd: int32(c.fd)}
	_ = syscall.EpollCtl(c.loop.epoll, syscall.EPOLL_CTL_MOD, c.fd, &ev) // can't fail for a descriptor of ours
}

// close drops what isn't written yet.
func (c *conn) close() {
	if !c.closed {
		c.closed = true
		c.loop.conns[c.fd] = nil
		syscall.Close(c.fd)
	}
}
