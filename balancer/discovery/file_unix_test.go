//go:build unix

package discovery_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer/discovery"
)

// A named pipe is refused, and isn't waited for: a source that hangs outlasts its context.
func TestFileIsPipe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "nodes")
	must(t, syscall.Mkfifo(path, 0o600))
	select {
	case got := <-watchSource(t, &discovery.File{Path: path}):
		if !strings.Contains(got, "no regular file") {
			t.Errorf("told %s", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("the source waits for somebody who writes to the pipe")
		writer, err := os.OpenFile(path, os.O_RDWR, 0) // lets it end
		must(t, err)
		defer writer.Close()
	}
}
