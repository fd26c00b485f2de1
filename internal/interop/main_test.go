package interop_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/limpet-go/limpet/internal/interop"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		interop.Remove()
		os.Exit(code)
	}))
}

var versions = []interop.Version{interop.V2, interop.V3, interop.V4}

// each runs a test for each generation of Socket.IO, side by side.
func each(t *testing.T, test func(*testing.T, interop.Version)) {
	t.Parallel()
	for _, v := range versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			test(t, v)
		})
	}
}
