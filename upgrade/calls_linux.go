//go:build !386

package upgrade

import "syscall"

// The calls by which a loop reads and writes. Those for any file cost a fiftieth of
// a message more, since they have to find out that it is a socket; and a socket
// whose descriptor somebody makes blocking would hold up the whole loop.
const (
	receive = syscall.SYS_RECVFROM
	send    = syscall.SYS_SENDTO
)
