//go:build unix

package socketio_test

import (
	"syscall"
	"testing"

	"github.com/limpet-go/limpet/internal/interop"
)

// hang stops a node until wake.
func hang(t *testing.T, n *interop.Node) (wake func()) {
	n.Signal(t, syscall.SIGSTOP)
	return func() { n.Signal(t, syscall.SIGCONT) }
}
