//go:build !linux

package sockets

import "net"

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
