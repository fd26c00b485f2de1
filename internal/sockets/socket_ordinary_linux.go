//go:build limpet_ordinary_syscalls || 386

package sockets

import (
	"net"
	"syscall"
)

// accept accepts a connection.
func accept(fd int) (int, net.Addr, error) {
	n, sa, err := syscall.Accept4(fd, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
	if err != nil {
		return -1, nil, err
	}
	return n, address(sa), nil
}

// connect begins to connect a socket that doesn't block.
func connect(fd int, to syscall.Sockaddr) error { return syscall.Connect(fd, to) }

// setOption sets an option of a socket that is a number.
func setOption(fd, level, name, value int) { _ = syscall.SetsockoptInt(fd, level, name, value) }

// Close closes a socket that is [Conn.Take]n and doesn't linger.
func Close(fd int) { _ = syscall.Close(fd) }
