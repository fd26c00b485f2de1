// Package layout holds the repository to its plan.
package layout

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/limpet-go/limpet"

// prometheus is what only middleware/metrics imports, so that no other package of Limpet
// brings it into a program.
const prometheus = "github.com/prometheus/"

// floors are the packages that know nothing of each other.
var floors = []string{"balancer", "affinity", "upgrade", "bus"}

// floor returns the top-level folder of a package of this module, "" for the
// root and for packages of other modules.
func floor(path string) string {
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	top, _, _ := strings.Cut(rest, "/")
	return top
}

// allowed tells whether one package may import another. Tests of a floor are
// held to the same rule as the rest of it.
func allowed(from, to string) bool {
	here, there := floor(from), floor(to)
	switch {
	case there == "" || there == here:
		return true
	case slices.Contains(floors, here):
		return there == "internal"
	case here == "middleware":
		return there == "internal" || slices.Contains(floors, there)
	}
	return here == "internal" || here == "examples"
}

func TestAllowed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from, to string
		want     bool
	}{
		{"affinity", "internal/leaktest", true},
		{"affinity/affinitytest", "affinity", true},
		{"bus/socketio", "bus", true},
		{"affinity", "balancer", false},
		{"bus/socketio", "upgrade", false},
		{"upgrade", "middleware", false},
		{"balancer", "examples/chat", false},
		{"middleware", "upgrade", true},
		{"middleware", "examples/chat", false},
		{"examples/chat", "middleware", true},
	} {
		if got := allowed(module+"/"+tt.from, module+"/"+tt.to); got != tt.want {
			t.Errorf("%s imports %s: %t, want %t", tt.from, tt.to, got, tt.want)
		}
	}
}

func TestImports(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	n := 0
	for packages := json.NewDecoder(strings.NewReader(string(out))); ; n++ {
		var p struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		if err := packages.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, to := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if strings.HasPrefix(to, prometheus) && p.ImportPath != module+"/middleware/metrics" {
				t.Errorf("%s imports %s, but middleware/metrics alone may: it has a Handler for programs", p.ImportPath, to)
			}
			if !allowed(p.ImportPath, to) {
				t.Errorf("%s imports %s", p.ImportPath, to)
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d packages seen", n)
	}
}

func TestTopLevel(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	want := append([]string{
		"middleware", "examples", "internal", "go.mod", "go.sum", "README.md", "doc.go", "LICENSE",
	}, floors...)
	for _, e := range entries {
		if name := e.Name(); !strings.HasPrefix(name, ".") && !slices.Contains(want, name) {
			t.Errorf("%s has no place at the top level", name)
		}
	}
}
