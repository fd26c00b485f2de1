//go:build !386

package sockets

import (
	"syscall"
	"unsafe"
)

// The system calls by which sockets are read and written. Those for any file cost a
// fiftieth of a message more, as the kernel has to find out that it is a socket. And
// they don't take MSG_DONTWAIT: a socket that somebody makes blocking would hold up
// a whole event loop.
const (
	receiveCall = syscall.SYS_RECVFROM
	sendCall    = syscall.SYS_SENDTO
)

// Peek reads from a socket, and leaves there what it has read. It never waits.
func Peek(fd int, b []byte) (int, error) {
	return call(receiveCall, fd, unsafe.Pointer(unsafe.SliceData(b)), len(b), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
}
