//go:build unix

package interop_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/limpet-go/limpet/internal/interop"
	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
)

// The first program of README.md, copied into a module of its own, serves clients of
// socket.io-client as Node has them: no cookies, and any transports. They survive the
// death of a node, and leave with close code 1012 when the program is told to end.
func TestReadme(t *testing.T) {
	for _, v := range versions { // one after the other: each builds the program
		t.Run(string(v), func(t *testing.T) { testReadme(t, v) })
	}
}

func testReadme(t *testing.T, v interop.Version) {
	cluster := interop.Start(t, v, 3)
	gateway := startReadme(t, cluster)

	s := &scene{Clients: interop.StartClients(t, v), version: v, gateway: gateway}
	for name, transports := range map[string][]string{"default": nil, "polling": polling, "websocket": websocket} {
		s.join(t, name, 6, func(_ int, c *interop.Client) {
			c.Cookies = false
			if c.Options["transports"] = transports; transports == nil {
				delete(c.Options, "transports")
			}
		})
	}
	before := homes(s.Events("connect"))
	s.unmoved(t, before)
	for client, transport := range s.Transports(t, s.names) {
		if want := strings.HasPrefix(client, "polling"); want != (transport == "polling") {
			t.Errorf("%s is on %s", client, transport)
		}
	}
	for _, e := range s.Events("refused") {
		t.Errorf("%s: %s %s: %d", e.Client, e.Method, e.URL, e.Status)
	}

	if len(clientsOf("node1", before)) == 0 {
		t.Fatalf("node1 has no clients: %v", before)
	}
	cluster.Nodes[0].Kill()
	s.Await(t, "the clients of node1 on other nodes", func(events []interop.Event) bool {
		return len(clientsOf("node1", homes(events))) == 0
	})
	s.Ask(t, s.names, "echo", "still there?")
	for _, e := range s.Events("disconnect") {
		if before[e.Client] != "node1" {
			t.Errorf("%s was on %s and is disturbed: %s", e.Client, before[e.Client], e.Reason)
		}
	}
	for _, e := range s.Events("refused") {
		if !strings.Contains(e.URL, "sid=") {
			t.Errorf("%s can't open a session: %s %s: %d", e.Client, e.Method, e.URL, e.Status)
		}
	}
	s.Kill()

	leavers := &scene{Clients: interop.StartClients(t, v), version: v, gateway: gateway}
	leavers.join(t, "leaver", 6, func(_ int, c *interop.Client) {
		c.Cookies = false
		c.Options["transports"] = websocket
		c.Options["reconnection"] = false
	})
	gateway.Signal(t, syscall.SIGTERM)
	leavers.Await(t, "the end of all clients", func([]interop.Event) bool {
		return len(leavers.Events("disconnect")) == len(leavers.names)
	})
	for _, e := range leavers.Events("disconnect") {
		if v == interop.V4 && e.Code != 1012 { // only this client tells the code
			t.Errorf("%s: close code %d, want 1012", e.Client, e.Code)
		}
	}
	if code := gateway.End(t); code != 0 {
		t.Errorf("the program ended with %d", code)
	}
}

// startReadme builds and starts the program. It changes what whoever copies it has to
// change, the addresses, and the time of a drain, for which a test would be long.
func startReadme(t *testing.T, cluster *interop.Cluster) *interop.Gateway {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	_, program, found := strings.Cut(read(t, root, "README.md"), "```go\npackage main\n")
	program, _, ended := strings.Cut("package main\n"+program, "```")
	if !found || !ended {
		t.Fatal("README.md has no program")
	}
	addr := freeAddr(t)
	changes := []string{`":8080"`, fmt.Sprintf("%q", addr), "30*time.Second", "1*time.Second"}
	for i, node := range cluster.Nodes {
		changes = append(changes, fmt.Sprintf(`"%c=http://10.0.0.%d:3000"`, 'a'+i, i+1), fmt.Sprintf(`"%s=%s"`, node.Name, node.URL()))
	}
	for i := 0; i < len(changes); i += 2 {
		if strings.Count(program, changes[i]) != 1 {
			t.Fatalf("README.md's program doesn't have %s once:\n%s", changes[i], program)
		}
		program = strings.Replace(program, changes[i], changes[i+1], 1)
	}

	p := process.Start(t, exec.Command(buildReadme(t, root, map[string]string{"main.go": program})))
	p.AwaitLine(t, "no Options.Affinity") // logged right before it listens
	return &interop.Gateway{Process: p, URL: "http://" + addr}
}

// buildReadme builds a program in a module of its own, which requires Limpet as it is in
// root, and returns its path.
func buildReadme(t *testing.T, root string, files map[string]string) string {
	t.Helper()
	// The other requirements are those that go mod tidy would find: Limpet's.
	module := regexp.MustCompile(`(?m)^module .*$`).ReplaceAllLiteralString(read(t, root, "go.mod"), "module example.com/service")
	files["go.mod"] = module + fmt.Sprintf("\nrequire github.com/limpet-go/limpet v0.0.0\n\nreplace github.com/limpet-go/limpet => %q\n", root)
	files["go.sum"] = read(t, root, "go.sum")
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return need.Module(t, dir)
}

// snippetPackages are those that README.md's shorter pieces of Go use without importing
// them.
var snippetPackages = map[string]string{
	"affinity":  "github.com/limpet-go/limpet/affinity",
	"balancer":  "github.com/limpet-go/limpet/balancer",
	"bus":       "github.com/limpet-go/limpet/bus",
	"chi":       "github.com/go-chi/chi/v5",
	"context":   "context",
	"discovery": "github.com/limpet-go/limpet/balancer/discovery",
	"hex":       "encoding/hex",
	"http":      "net/http",
	"hub":       "github.com/limpet-go/limpet/bus/hub",
	"limpet":    "github.com/limpet-go/limpet/middleware",
	"log":       "log",
	"metrics":   "github.com/limpet-go/limpet/middleware/metrics",
	"netip":     "net/netip",
	"os":        "os",
	"redis":     "github.com/redis/go-redis/v9",
	"slog":      "log/slog",
	"socketio":  "github.com/limpet-go/limpet/bus/socketio",
	"status":    "github.com/limpet-go/limpet/middleware/status",
	"strings":   "strings",
	"time":      "time",
	"upgrade":   "github.com/limpet-go/limpet/upgrade",
}

// The shorter pieces of Go in README.md compile. What they leave out are a context, a
// router, a pool, a Redis client and a handler that asks for a password.
func TestReadmeSnippets(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"main.go": "package main\n\nfunc main() {}\n"}
	for i, block := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(read(t, root, "README.md"), -1) {
		if strings.HasPrefix(block[1], "package main") {
			continue // TestReadme runs it
		}
		body := "func _(ctx context.Context, r chi.Router, pool *balancer.Pool, client redis.UniversalClient, basicAuth func(http.Handler) http.Handler) {\n{\n" + block[1] + "}\n}\n"
		var imports strings.Builder
		for name, path := range snippetPackages {
			if regexp.MustCompile(`\b` + name + `\.[A-Z]`).MatchString(body) {
				fmt.Fprintf(&imports, "import %s %q\n", name, path)
			}
		}
		files[fmt.Sprintf("snippet%d.go", i)] = "package main\n\n" + imports.String() + body
	}
	if len(files) < 4 {
		t.Fatalf("README.md has only %d of them", len(files)-1)
	}
	buildReadme(t, root, files)
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// freeAddr returns an address on which nobody listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
