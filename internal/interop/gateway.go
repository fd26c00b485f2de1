package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/limpet-go/limpet/internal/process"
)

// Gateway is a running examples/gateway.
type Gateway struct {
	*process.Process
	URL string
}

// StartGateway starts examples/gateway in front of the cluster, with a health
// check that bears with nodes on a busy machine, and whatever other flags it is
// given.
func StartGateway(t testing.TB, c *Cluster, flags ...string) *Gateway {
	t.Helper()
	args := []string{"-listen", "127.0.0.1:0", "-health", "/health", "-health-interval", "2s"}
	for _, n := range c.Nodes {
		args = append(args, "-backend", n.Name+"="+n.URL())
	}
	p := process.Start(t, exec.Command(program(t), append(args, flags...)...))
	line := p.AwaitLine(t, `listening.*127\.0\.0\.1:\d+`)
	return &Gateway{Process: p, URL: "http://" + regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)}
}

// build builds examples/gateway once for all tests of the process; Remove
// deletes it.
var built struct {
	sync.Once
	dir string
	err error
}

func program(t testing.TB) string {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "limpet-gateway-"); built.err != nil {
			return
		}
		build := exec.Command("go", "build", "-o", built.dir, "github.com/limpet-go/limpet/examples/gateway")
		if out, err := build.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatalf("build examples/gateway: %v", built.err)
	}
	return filepath.Join(built.dir, "gateway")
}

// Remove deletes the program that StartGateway built: for TestMain.
func Remove() {
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
}
