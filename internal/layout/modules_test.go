package layout

import (
	"os/exec"
	"strings"
	"testing"
)

// Programs can use the modules beside this one that are for them. What such a module replaces
// holds here alone: a program goes by the version that it requires. Without a release that has to
// be below all versions of main, which begin with v0.0.0-2. v0.0.0 is above them, and there is no
// such version, so go get would fail.
func TestModules(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"../../bus/nats"} {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f={{.Version}}", module)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", dir, err, out)
		}
		if strings.TrimSpace(string(out)) == "v0.0.0" {
			t.Errorf("%s requires v0.0.0 of %s, which doesn't exist: write v0.0.0-00010101000000-000000000000, or a release", dir, module)
		}
	}
}
