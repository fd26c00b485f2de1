//go:build unix

package chaos

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/redistest"
)

var (
	seed    = flag.Uint64("chaos.seed", 1, "what follows from it: the faults and their order")
	lasting = flag.Duration("chaos.for", 20*time.Second, "how long the test takes")
	crowd   = flag.Int("chaos.clients", 0, "number of clients; 0: 300, or 100 with -race or -short")
)

func TestMain(m *testing.M) {
	if ran, err := runRole(); ran {
		fmt.Fprintln(os.Stderr, err)
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestChaos(t *testing.T) {
	r := &run{seed: *seed, lasting: *lasting, clients: *crowd, end: raceEnabled}
	if r.clients == 0 {
		if r.clients = 300; raceEnabled || testing.Short() {
			r.clients = 100
		}
	}
	if _, err := exec.LookPath("redis-server"); err == nil {
		r.redis = redistest.Start(t)
	} else {
		t.Log("no redis-server: without a bus, each gateway is told of drains by the test, and no session is of Engine.IO 3")
	}
	r.do(t)
}
