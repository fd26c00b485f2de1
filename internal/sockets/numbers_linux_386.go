package sockets

import "syscall"

// The system calls by which sockets are read and written. Package syscall has no numbers of
// those for sockets here. These ignore the flags.
const (
	receiveCall = syscall.SYS_READ
	sendCall    = syscall.SYS_WRITE
)
