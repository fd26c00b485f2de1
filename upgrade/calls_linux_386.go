package upgrade

import "syscall"

// The calls by which a loop reads and writes. The package syscall has no number of
// those for sockets here; these don't look at the flags.
const (
	receive = syscall.SYS_READ
	send    = syscall.SYS_WRITE
)
