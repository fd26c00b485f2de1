package sockets

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// A listener accepts a Conn where a listener of package net accepts a connection of that.
// Both share one descriptor: whoever closes the one closes the other.
//
// The first TCP connection is accepted by package net, and tells which options the listener
// sets on each: TCP_NODELAY, and whatever its ListenConfig says of keep-alive. They are then
// set on the listening socket, from which Linux passes them on to connections that come then.
type listener struct {
	below interface {
		net.Listener
		SetDeadline(time.Time) error
	}
	network string
	socket  descriptor // whose in has connections to accept; below owns it
	lingers bool       // SO_LINGER is set, which connections inherit

	options atomic.Pointer[options] // of a connection; nil before the first
	passes  atomic.Bool             // Linux passes the options on
	without atomic.Int32            // connections that came without them before one that had them

	// take calls accept. It is made once, since a closure made for each call would be an
	// allocation, as would what it changes. The call that uses socket.in has the rest.
	take   func(from uintptr)
	fd     int
	remote net.Addr
	err    error
}

// queue is more than the connections that a listening socket has usually waiting. Those that
// have waited since before the options were set don't have them.
const queue = 4096

// Listen returns a listener that accepts connections of type *[Conn] from l. It returns l
// itself if that is neither a *net.TCPListener nor a *net.UnixListener of stream sockets.
func Listen(l net.Listener) net.Listener {
	n := &listener{}
	var raw syscall.RawConn
	var err error
	switch below := l.(type) {
	case *net.TCPListener:
		n.below, n.network = below, "tcp"
		raw, err = below.SyscallConn()
	case *net.UnixListener:
		n.below, n.network = below, "unix"
		n.options.Store(&options{})
		if below.Addr().Network() != "unix" {
			return l
		}
		raw, err = below.SyscallConn()
	default:
		return l
	}
	if err != nil {
		return l
	}
	n.take = func(from uintptr) { n.fd, n.remote, n.err = accept(int(from)) }
	n.socket.owner = raw
	n.socket.in.ready.Store(true)
	err = raw.Control(func(fd uintptr) {
		n.socket.fd = int(fd)
		on, failed := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER) // the first half of a syscall.Linger
		n.lingers = failed != nil || on != 0
		n.socket.mu.Lock()
		err = n.socket.await(0)
		n.socket.mu.Unlock()
	})
	if err != nil || n.socket.poller == nil {
		return l
	}
	return n
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	if l.options.Load() == nil {
		return l.acceptFirst()
	}
	fd, from, err := l.accept()
	if err != nil {
		return nil, &net.OpError{Op: "accept", Net: l.network, Addr: l.Addr(), Err: err}
	}
	if l.network != "unix" {
		l.ensureOptions(fd)
	}
	return l.conn(fd, from), nil
}

// conn returns a connection that was accepted.
func (l *listener) conn(fd int, remote net.Addr) *Conn {
	c := newConn(fd, l.network, remote)
	c.accepted = true
	c.shared.Store(l.lingers)
	return c
}

// accept returns a connection's socket and the address of its peer.
func (l *listener) accept() (fd int, remote net.Addr, err error) {
	s := &l.socket.in
	if err := l.socket.begin(s); err != nil {
		return -1, nil, err
	}
	defer l.socket.end(s)
	for {
		if !s.ready.Load() {
			if err := l.socket.wait(s, 0); err != nil {
				return -1, nil, err
			}
		}
		s.ready.Store(false)
		if l.socket.owner.Control(l.take) != nil {
			l.socket.close() // somebody has closed the listener below
			return -1, nil, net.ErrClosed
		}
		if l.err == syscall.EAGAIN {
			continue
		}
		s.ready.Store(true)
		switch l.err {
		case nil:
			return l.fd, l.remote, nil
		case syscall.EINTR, syscall.ECONNABORTED: // the connection was closed in the queue
		default:
			return -1, nil, os.NewSyscallError("accept4", l.err)
		}
	}
}

// acceptFirst accepts a connection by package net, and learns what options it has.
func (l *listener) acceptFirst() (net.Conn, error) {
	conn, err := l.below.Accept()
	if err != nil {
		return nil, err
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return conn, nil
	}
	fd, failed := -1, error(nil)
	err = raw.Control(func(old uintptr) {
		var o options
		if o, failed = optionsOf(int(old)); failed == nil {
			fd, failed = Duplicate(old)
		}
		if failed == nil && l.options.Load() == nil {
			_ = l.socket.owner.Control(func(fd uintptr) { o.set(int(fd)) })
			l.options.Store(&o)
		}
	})
	if errors.Join(err, failed) != nil {
		return conn, nil
	}
	conn.Close()
	return l.conn(fd, conn.RemoteAddr()), nil
}

// ensureOptions has a connection have the options, whether Linux has passed them on or not.
// The first that has them already shows that all behind it do.
func (l *listener) ensureOptions(fd int) {
	if l.passes.Load() {
		return
	}
	want := l.options.Load()
	if l.without.Load() < queue {
		if have, err := optionsOf(fd); err == nil && have == *want {
			l.passes.Store(true)
			return
		}
		l.without.Add(1)
	}
	want.set(fd)
}

// Close implements [net.Listener].
func (l *listener) Close() error {
	_ = l.socket.owner.Control(func(uintptr) { // it may stay open, if others have it too
		l.socket.mu.Lock()
		if l.socket.poller != nil {
			l.socket.control(syscall.EPOLL_CTL_DEL, 0)
		}
		l.socket.mu.Unlock()
	})
	l.socket.close()
	return l.below.Close()
}

// Addr implements [net.Listener].
func (l *listener) Addr() net.Addr { return l.below.Addr() }

// SetDeadline sets the time at which Accept gives up.
func (l *listener) SetDeadline(t time.Time) error {
	l.socket.setDeadline(&l.socket.in, t)
	return l.below.SetDeadline(t)
}
