package sockets

import "syscall"

// The system calls by which sockets are read and written. Package syscall has no numbers of
// those for sockets here. These ignore the flags.
const (
	receiveCall = syscall.SYS_READ
	sendCall    = syscall.SYS_WRITE
)

// Peek reads from a socket, and leaves there what it has read. It never waits.
func Peek(fd int, b []byte) (int, error) {
	n, _, err := syscall.Recvfrom(fd, b, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return n, err
}
