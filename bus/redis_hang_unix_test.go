//go:build unix

package bus_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/redistest"
)

// What is published before and after Redis hangs arrives: the old connection stays until it is
// known to be dead.
func TestRedisHangsUnderLoad(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	load := startLoad(t, "topic", server.Client(t), server.Client(t))
	load.run(t, func() {
		server.Signal(t, syscall.SIGSTOP)
		time.Sleep(2500 * time.Millisecond)
		server.Signal(t, syscall.SIGCONT)
	}, false, 0)
}
