//go:build !linux

package sockets

import (
	"context"
	"net"
)

// Dial connects as d does.
func Dial(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
	return d.DialContext(ctx, network, addr)
}

// Listen returns l.
func Listen(l net.Listener) net.Listener { return l }

// Direct reports whether conn passes bytes to the kernel as they are.
func Direct(conn net.Conn) bool {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// WriteBuffers is v.WriteTo(conn).
func WriteBuffers(conn net.Conn, v *net.Buffers) (int64, error) { return v.WriteTo(conn) }
