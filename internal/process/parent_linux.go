package process

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill the process with the one that started it:
// a test that is killed itself runs no Cleanup.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
