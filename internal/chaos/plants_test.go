//go:build unix

package chaos

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

var plant = flag.String("chaos.plant", "", "plant bugs, each alone in a copy of the module, and expect that the test finds it: a `regexp` of their names, . for all")

// A bug is a defect to plant: what stands in a file, exactly once, and what takes its place.
type bug struct {
	name, file, is, becomes string
}

var bugs = []bug{
	{"no close frame", "upgrade/course.go",
		"frame = closeFrame(c.code, c.reason, d == toBackend)", "frame = nil"},
	{"pin on pick instead of on answer", "middleware/bind.go",
		"from, home := t.home(), t.backend.ID()\n", "from, home := t.home(), t.backend.ID()\n\tif len(t.tried) > 0 {\n\t\thome = t.tried[0].ID()\n\t}\n"},
	{"forget the tried set", "middleware/router.go",
		"t.tried = append(t.tried, b)", "_ = b"},
	{"skip the resubscribe", "bus/redis_feed.go",
		"t.link, t.sent, t.pending = nil, false, 0", "t.link, t.pending = nil, 0"},
	{"leak a tunnel's connection", "upgrade/loop_tunnel_linux.go",
		"if t.interest[i]&alone != 0 {", "if t.interest[i]&alone != 0 && i > 0 {"},
	{"leak a tunnel in the registry", "upgrade/tunnel.go",
		"s.Duration = t.proxy.forget(t)", "s.Duration = 0"},
	{"retry a POST", "middleware/retry.go",
		"case \"\", http.MethodGet,", "case \"\", http.MethodPost, http.MethodGet,"},
	{"new pins on a draining backend", "balancer/late.go",
		"case b.State() == Up, busy", "case b.State() == Up, b.drain.Load() != nil && b.State() == Draining, busy"},
	{"tunnels of a lost backend stay", "middleware/tunnel.go",
		"if c.Lost {", "if c.Lost && c.From == c.To {"},
	{"a gateway that leaves stays ready", "middleware/ready.go",
		"func (g *Gateway) Leave() { g.leaving.Store(true) }", "func (g *Gateway) Leave() {}"},
	{"a session's requests go anywhere", "affinity/engineio.go",
		"note.plain = plain\n\treturn Pin{Backend: home,", "note.plain = plain\n\t_ = home\n\treturn Pin{Backend: \"\","},
	{"a drain is told to nobody", "middleware/replicas.go",
		"if r.pool.SetWish(d.Backend, d.wish()) == nil {", "if d.Backend == \"\" {"},
}

// Each bug can be planted.
func TestPlantsFit(t *testing.T) {
	for _, b := range bugs {
		if _, _, err := b.planted(filepath.Join("..", "..")); err != nil {
			t.Error(err)
		}
	}
}

// TestPlants takes a minute for each bug: it isn't for every day.
func TestPlants(t *testing.T) {
	if *plant == "" {
		t.Skip("plants bugs with -args -chaos.plant=. only")
	}
	wanted, err := regexp.Compile(*plant)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	copyModule(t, dir)
	for _, b := range bugs {
		if wanted.MatchString(b.name) {
			t.Run(b.name, func(t *testing.T) { b.find(t, dir) })
		}
	}
}

// planted returns what the bug's file in a copy of the module has, and would have with the bug.
func (b *bug) planted(dir string) (text, planted []byte, err error) {
	text, err = os.ReadFile(filepath.Join(dir, filepath.FromSlash(b.file)))
	if err != nil {
		return nil, nil, err
	}
	if n := bytes.Count(text, []byte(b.is)); n != 1 {
		return nil, nil, fmt.Errorf("%s has %d times %q: want it once", b.file, n, b.is)
	}
	return text, bytes.Replace(text, []byte(b.is), []byte(b.becomes), 1), nil
}

var firstFound = regexp.MustCompile(`first found: .*|seed \d+: map.*|LEAK: .*`)

// find plants the bug, and expects that the chaos test fails.
func (b *bug) find(t *testing.T, dir string) {
	text, planted, err := b.planted(dir)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, filepath.FromSlash(b.file))
	if err := os.WriteFile(file, planted, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(file, text, 0o600)
	program := filepath.Join(t.TempDir(), "chaos.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, "./internal/chaos")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	test := exec.CommandContext(t.Context(), program, "-test.run=^TestChaos$", "-test.v",
		fmt.Sprintf("-chaos.seed=%d", *seed), "-chaos.for="+lasting.String(), fmt.Sprintf("-chaos.clients=%d", *crowd))
	test.Dir = filepath.Join(dir, "internal", "chaos")
	test.WaitDelay = time.Second
	out, err := test.CombinedOutput()
	switch found := firstFound.FindAll(out, -1); {
	case err == nil:
		t.Errorf("not found\n%s", out)
	case found == nil:
		t.Errorf("the test failed in another way:\n%.5000s", out)
	default:
		t.Logf("%s", bytes.Join(found, []byte("\n")))
	}
}

// copyModule copies the module's files to dir.
func copyModule(t *testing.T, dir string) {
	root := os.DirFS(filepath.Join("..", ".."))
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git" || d.Name() == "examples"):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(dir, path), 0o700)
		case !d.Type().IsRegular():
			return nil
		}
		text, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, path), text, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}
