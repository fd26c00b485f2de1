//go:build !unix

package socketio_test

import (
	"testing"

	"github.com/limpet-go/limpet/internal/interop"
)

func hang(t *testing.T, _ *interop.Node) (wake func()) {
	t.Skip("processes can't be stopped on this system")
	return nil
}
