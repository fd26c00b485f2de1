// Package need says what a test needs from outside of the repository: programs,
// npm packages and Go modules.
//
// Where one is missing, the test is skipped and says what it missed. The
// environment variable LIMPET_REQUIRE lists what must not be missing, by the
// names that the tests use and separated by commas
// (LIMPET_REQUIRE=redis,node,chromium): then the test fails. Tests use the
// network to get something only when it is listed there.
package need

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Redis returns the path of redis-server.
func Redis(t testing.TB) string {
	t.Helper()
	return Program(t, "redis", "redis-server")
}

// Node returns the path of node.
func Node(t testing.TB) string {
	t.Helper()
	return Program(t, "node", "node")
}

// Chromium returns the path of a browser that speaks the DevTools protocol.
func Chromium(t testing.TB) string {
	t.Helper()
	return Program(t, "chromium", "chromium", "chromium-browser", "google-chrome")
}

// Program returns the path of the first of files that is in PATH, for what
// LIMPET_REQUIRE calls name.
func Program(t testing.TB, name string, files ...string) string {
	t.Helper()
	for _, file := range files {
		if path, err := exec.LookPath(file); err == nil {
			return path
		}
	}
	missing(t, name, "needs "+files[0]+" in PATH")
	return ""
}

// installing keeps two tests of one process from installing the same packages
// at once.
var installing sync.Mutex

// Modules makes sure that dir/node_modules holds what dir/package-lock.json
// says, and returns the path of node. It runs npm ci for that only when
// LIMPET_REQUIRE lists node.
func Modules(t testing.TB, dir string) (node string) {
	t.Helper()
	node = Node(t)
	installing.Lock()
	defer installing.Unlock()
	if installed(dir) {
		return node
	}
	if !required("node") {
		missing(t, "node", "needs npm packages: run npm ci in "+dir)
	}
	npm := exec.CommandContext(t.Context(), "npm", "ci")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm ci in %s: %v\n%s", dir, err, out)
	}
	return node
}

// Module builds the program of the nested Go module in dir and returns its path.
// The modules it needs are downloaded only when LIMPET_REQUIRE lists modules.
func Module(t testing.TB, dir string) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "program")
	run := func(args ...string) error {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		if !required("modules") {
			cmd.Env = append(os.Environ(), "GOPROXY=off")
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Logf("go %s in %s: %v\n%s", strings.Join(args, " "), dir, err, out)
		}
		return err
	}
	if run("mod", "download") != nil {
		missing(t, "modules", "needs Go modules: run go mod download in "+dir)
	}
	if run("build", "-o", program, ".") != nil {
		t.FailNow()
	}
	return program
}

// installed tells whether npm has run in dir since its lock file last changed:
// npm leaves a lock file of its own behind.
func installed(dir string) bool {
	want, err := os.Stat(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return false
	}
	got, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json"))
	return err == nil && !got.ModTime().Before(want.ModTime())
}

// Lacks skips a test for which this machine lacks something that nobody can install, in
// words, and which LIMPET_REQUIRE calls name.
func Lacks(t testing.TB, name, message string) {
	t.Helper()
	missing(t, name, message)
}

func missing(t testing.TB, name, message string) {
	t.Helper()
	if required(name) {
		t.Fatalf("%s, and LIMPET_REQUIRE lists %s", message, name)
	}
	t.Skip(message)
}

func required(name string) bool {
	return slices.Contains(strings.Split(os.Getenv("LIMPET_REQUIRE"), ","), name)
}
