package socketio_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) {
	if addr := os.Getenv("LIMPET_TEST_MEMBER"); addr != "" {
		_ = beMember(addr)
		return
	}
	if peer := strings.Split(os.Getenv("LIMPET_TEST_PEER"), ","); len(peer) == 3 {
		if err := bePeer(peer[0], peer[1], peer[2]); err != nil {
			fmt.Println(err)
		}
		return
	}
	// After failed dials go-redis dials again in the background, and notices that
	// its client is closed up to a second late.
	leaktest.Main(m, "github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial")
}
