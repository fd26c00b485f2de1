package sockets

import (
	"net"
	"syscall"
)

// SyscallConn implements [syscall.Conn]. What it returns does what that of package net does.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return rawConn{c}, nil }

type rawConn struct{ *Conn }

// Control implements [syscall.RawConn].
func (c rawConn) Control(f func(fd uintptr)) error {
	if !c.acquire() {
		return &net.OpError{Op: "raw-control", Net: c.network, Addr: c.localAddr(), Err: net.ErrClosed}
	}
	defer c.release()
	c.share()
	f(uintptr(c.fd))
	return nil
}

// Read implements [syscall.RawConn].
func (c rawConn) Read(f func(fd uintptr) (done bool)) error {
	c.share()
	if err := c.use(&c.in, 0, f); err != nil {
		return c.failed("raw-read", err)
	}
	return nil
}

// Write implements [syscall.RawConn].
func (c rawConn) Write(f func(fd uintptr) (done bool)) error {
	c.share()
	if err := c.use(&c.out, syscall.EPOLLOUT, f); err != nil {
		return c.failed("raw-write", err)
	}
	return nil
}

// use calls f until it is done, and waits before each call but the first for an event since
// the last. What f leaves to do isn't known, so that s is ready afterwards.
func (d *descriptor) use(s *side, events uint32, f func(fd uintptr) (done bool)) error {
	if err := d.begin(s); err != nil {
		return err
	}
	defer d.end(s)
	defer s.ready.Store(true)
	for {
		s.ready.Store(false)
		if f(uintptr(d.fd)) {
			return nil
		}
		if err := d.wait(s, events); err != nil {
			return err
		}
	}
}
