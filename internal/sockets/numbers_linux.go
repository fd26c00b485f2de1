//go:build !386

package sockets

import "syscall"

// The system calls by which sockets are read and written. Those for any file cost a
// fiftieth of a message more, as the kernel has to find out that it is a socket. And
// they don't take MSG_DONTWAIT: a socket that somebody makes blocking would hold up
// a whole event loop.
const (
	receiveCall = syscall.SYS_RECVFROM
	sendCall    = syscall.SYS_SENDTO
)
