//go:build unix && (!linux || 386)

package balancer

import "syscall"

// The calls of a socket's ask.

func receive(fd int, p []byte, flags int) (int, error) {
	n, _, err := syscall.Recvfrom(fd, p, flags)
	return n, err
}

func send(fd int, p []byte) (int, error) { return syscall.Write(fd, p) }
