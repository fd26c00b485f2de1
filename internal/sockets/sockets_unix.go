//go:build unix && !linux

package sockets

import "syscall"

// Peek reads from a socket that doesn't block, and leaves there what it has read.
func Peek(fd int, b []byte) (int, error) {
	n, _, err := syscall.Recvfrom(fd, b, syscall.MSG_PEEK)
	return n, err
}

// Write writes to a socket that doesn't block.
func Write(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }
