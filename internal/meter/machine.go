//go:build linux

package meter

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Machine describes the machine, its system, and Go.
func Machine() string {
	model := runtime.GOARCH
	text, _ := os.ReadFile("/proc/cpuinfo")
	if _, rest, ok := strings.Cut(string(text), "model name\t: "); ok {
		model, _, _ = strings.Cut(rest, "\n")
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	version, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-") // what follows is the builder's
	return fmt.Sprintf("%d processors, %s, Linux %s, %s", runtime.NumCPU(), model, version, runtime.Version())
}

// FreePort returns a port below those that the kernel gives to connections: one
// of these could be taken, by a load like ours, before the gateway listens.
func FreePort() (int, error) {
	for tries := 0; ; tries++ {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			return port, l.Close()
		}
		if tries == 100 {
			return 0, err
		}
	}
}
