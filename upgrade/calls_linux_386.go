package upgrade

import "syscall"

// The system calls by which a loop reads and writes. Package syscall has no numbers of
// those for sockets here. These ignore the flags.
const (
	receive = syscall.SYS_READ
	send    = syscall.SYS_WRITE
)
