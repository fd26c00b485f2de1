package interop_test

import (
	"os"
	"testing"

	"github.com/limpet-go/limpet/internal/interop"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) {
	code := leaktest.Run(m)
	interop.Remove()
	os.Exit(code)
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
