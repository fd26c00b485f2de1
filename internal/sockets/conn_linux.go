package sockets

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// A Conn is a stream socket, of TCP or Unix. It does what *net.TCPConn and *net.UnixConn do,
// with the same errors, except that one which nobody closes stays open.
type Conn struct {
	descriptor
	network string
	remote  net.Addr
	local   atomic.Pointer[net.Addr]    // nil until somebody asks
	expired atomic.Pointer[net.OpError] // of Read; kept, since net/http has one Read fail for each request
}

// Direct reports whether conn passes bytes to the kernel as they are: whether it is a Conn,
// or one of package net.
func Direct(conn net.Conn) bool {
	switch conn.(type) {
	case *Conn, *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// newConn returns a Conn that owns a socket that doesn't block.
func newConn(fd int, network string, remote net.Addr) *Conn {
	c := &Conn{network: network, remote: remote}
	c.fd = fd
	c.eager.Store(network == "unix")
	c.in.ready.Store(true)
	c.out.ready.Store(true)
	return c
}

// Read implements [net.Conn].
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.read(b)
	if err == nil || err == io.EOF {
		return n, err
	}
	if err != os.ErrDeadlineExceeded {
		return n, c.failed("read", err)
	}
	if c.expired.Load() == nil {
		c.expired.Store(c.failed("read", err))
	}
	return n, c.expired.Load()
}

// Write implements [net.Conn].
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.write(b)
	if err != nil {
		return n, c.failed("write", err)
	}
	return n, nil
}

// Close implements [net.Conn].
func (c *Conn) Close() error {
	c.localAddr() // for those who ask afterwards
	if !c.close() {
		return c.failed("close", net.ErrClosed)
	}
	return nil
}

// CloseRead shuts down the reading.
func (c *Conn) CloseRead() error { return c.shutdown(syscall.SHUT_RD) }

// CloseWrite shuts down the writing.
func (c *Conn) CloseWrite() error { return c.shutdown(syscall.SHUT_WR) }

func (c *Conn) shutdown(how int) error {
	return c.do("close", func() error { return os.NewSyscallError("shutdown", syscall.Shutdown(c.fd, how)) })
}

// SetLinger is what [net.TCPConn.SetLinger] is.
func (c *Conn) SetLinger(seconds int) error {
	l := syscall.Linger{Linger: int32(max(0, seconds))}
	if seconds >= 0 {
		l.Onoff = 1
	}
	return c.do("set", func() error {
		c.share() // its close may wait from now on
		return os.NewSyscallError("setsockopt", syscall.SetsockoptLinger(c.fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &l))
	})
}

// do calls f while c is open, and stays so.
func (c *Conn) do(op string, f func() error) error {
	if !c.acquire() {
		return c.failed(op, net.ErrClosed)
	}
	defer c.release()
	if err := f(); err != nil {
		return c.failed(op, err)
	}
	return nil
}

// SetDeadline implements [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error {
	c.descriptor.setDeadline(&c.in, t)
	return c.deadline(&c.out, t)
}

// SetReadDeadline implements [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error { return c.deadline(&c.in, t) }

// SetWriteDeadline implements [net.Conn].
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.deadline(&c.out, t) }

func (c *Conn) deadline(s *side, t time.Time) error {
	if !c.descriptor.setDeadline(s, t) {
		return c.failed("set", net.ErrClosed)
	}
	return nil
}

// RemoteAddr implements [net.Conn].
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// LocalAddr implements [net.Conn]. It asks the kernel the first time: a listener's address
// need not be that of its connections, even if it names one.
func (c *Conn) LocalAddr() net.Addr {
	if a := c.localAddr(); a != nil {
		return a
	}
	return &net.TCPAddr{} // it was taken before
}

func (c *Conn) localAddr() net.Addr {
	if a := c.local.Load(); a != nil {
		return *a
	}
	if !c.acquire() {
		return nil
	}
	defer c.release()
	sa, err := syscall.Getsockname(c.fd)
	if err != nil {
		return nil
	}
	a := address(sa)
	c.local.CompareAndSwap(nil, &a)
	return *c.local.Load()
}

// failed returns an error as package net does.
func (c *Conn) failed(op string, err error) *net.OpError {
	e := &net.OpError{Op: op, Net: c.network, Source: c.localAddr(), Addr: c.remote, Err: err}
	if op == "set" {
		e.Source, e.Addr = nil, e.Source
	}
	return e
}

// ReportOnce has epoll report the next event only, and each further one only to a call that
// waits for it. That suits a connection that waits for one answer before it is taken: nothing
// is left to be undone in epoll then.
func (c *Conn) ReportOnce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.once = c.poller == nil // else epoll was told something else already
}

// Take ends c in favour of an event loop, and returns its descriptor, which c forgets: all
// calls fail with [net.ErrClosed] from then on. Nobody may use c meanwhile. If somebody does,
// or c is closed already, Take closes c and returns -1. Alone reports that nobody else has ever
// seen the descriptor, so that Close, which doesn't wait, ends the socket and takes it out of
// epoll.
func (c *Conn) Take() (fd int, alone bool) {
	if !c.refs.CompareAndSwap(0, closing) {
		c.close()
		return -1, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.events != 0 { // else epoll has nothing more to report
		c.control(syscall.EPOLL_CTL_DEL, 0)
	}
	c.forget()
	return c.fd, !c.shared.Load()
}
