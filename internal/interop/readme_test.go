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
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	_, program, found := strings.Cut(read("README.md"), "```go\npackage main\n")
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

	// The module's requirements are those that go mod tidy would find: Limpet's.
	dir := t.TempDir()
	module := regexp.MustCompile(`(?m)^module .*$`).ReplaceAllLiteralString(read("go.mod"), "module example.com/service")
	module += fmt.Sprintf("\nrequire github.com/limpet-go/limpet v0.0.0\n\nreplace github.com/limpet-go/limpet => %q\n", root)
	for name, text := range map[string]string{"main.go": program, "go.mod": module, "go.sum": read("go.sum")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := process.Start(t, exec.Command(need.Module(t, dir)))
	p.AwaitLine(t, "no Options.Affinity") // logged right before it listens
	return &interop.Gateway{Process: p, URL: "http://" + addr}
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
