package hub_test

import (
	"os"
	"testing"

	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) {
	if addr := os.Getenv(clientsOf); addr != "" {
		memberClients(addr)
		return
	}
	if arg := os.Getenv(awayNode); arg != "" {
		runAwayNode(arg)
		return
	}
	// After failed dials go-redis tries again in the background, and sees a
	// second later only that its client is closed.
	leaktest.Main(m, "github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial")
}
