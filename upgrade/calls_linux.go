//go:build !386

package upgrade

import "syscall"

// The system calls by which a loop reads and writes. Those for any file cost a
// fiftieth of a message more, as the kernel has to find out that it is a socket. And
// they don't take MSG_DONTWAIT: a socket that somebody makes blocking would hold up
// the whole loop.
const (
	receive = syscall.SYS_RECVFROM
	send    = syscall.SYS_SENDTO
)
