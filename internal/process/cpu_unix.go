//go:build unix

package process

import (
	"syscall"
	"time"
)

// CPU returns the processor time that this process has used, in user and in
// system mode. It is 0 where that can't be told.
func CPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
