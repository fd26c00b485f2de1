//go:build unix

package balancer_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// ended waits until the other end has closed c or said something, without taking that from it.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	must(t, err)
	err = raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
		return err != syscall.EAGAIN
	})
	if !errors.Is(err, net.ErrClosed) { // which it may be on this side already
		must(t, err)
	}
}

// dialed returns where the next two connections to s can be had.
func dialed(s *site) <-chan net.Conn {
	conns := make(chan net.Conn, 2)
	dial := s.Dial
	s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		conns <- c
		return c, err
	}
	return conns
}

// What can't be sent again isn't written to a kept connection that is closed.
func TestClosedConnectionIsNotWrittenTo(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, says("HTTP/1.1 204 No Content\r\n\r\n")))
	conns := dialed(s)
	for range 2 {
		res, err := s.send(t.Context(), "POST", "hello")
		read(t, res, err)
		ended(t, <-conns)
	}
}

// A backend that accepts and hangs up, as one does that is just being killed, is
// to blame for what can't be sent to it.
func TestFreshConnectionIsClosed(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(net.Conn) {}))
	dial := s.Dial
	s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		ended(t, c)
		return c, err
	}
	_, err := s.send(t.Context(), "POST", "hello")
	fails(t, err, false, io.EOF)
}

// What a backend says before it is asked, such as the 408 of some, is no answer to the next request.
func TestUnaskedAnswer(t *testing.T) {
	t.Parallel()
	first := make(chan struct{}, 1)
	first <- struct{}{}
	s := reach(t, raw(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		select {
		case <-first:
			io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
		default:
		}
	}))
	conns := dialed(s)
	for range 2 {
		res, err := s.send(t.Context(), "POST", "hello")
		if got := read(t, res, err); got != "hello" || res.StatusCode != 200 {
			t.Errorf("%s with %q", res.Status, got)
		}
		ended(t, <-conns)
	}
}

// A backend that is too busy for a new connection may say so before it was asked
// anything, and nothing more.
func TestAnswerBeforeTheRequest(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*net.TCPConn) error{
		"and waits":  func(*net.TCPConn) error { return nil },
		"and closes": (*net.TCPConn).CloseWrite,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := reach(t, raw(t, func(c net.Conn) {
				io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy")
				end(c.(*net.TCPConn))
				io.Copy(io.Discard, c)
			}))
			dial := s.Dial
			s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := dial(ctx, network, addr)
				ended(t, c)
				return c, err
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			res, err := s.send(ctx, "GET", "")
			if got := read(t, res, err); got != "busy" {
				t.Errorf("%q", got)
			}
		})
	}
}
