package socketio_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if addr := os.Getenv("LIMPET_TEST_MEMBER"); addr != "" {
		_ = beMember(addr)
		return
	}
	goleak.VerifyTestMain(m)
}
