//go:build !race

package sockets

import "syscall"

// most is how many bytes a Conn has a call copy that the scheduler isn't told of.
const most = 64 << 10

func receive(fd int, b []byte) (int, error) {
	if len(b) > most {
		return syscall.Read(fd, b)
	}
	return Receive(fd, b)
}

// Write writes to a socket that doesn't block.
func Write(fd int, b []byte) (int, error) {
	if len(b) > most {
		return syscall.Write(fd, b)
	}
	return Send(fd, b)
}
