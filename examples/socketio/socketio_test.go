package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/internal/browser"
	"github.com/limpet-go/limpet/internal/interop"
	"github.com/limpet-go/limpet/internal/leaktest"
	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
	"github.com/limpet-go/limpet/internal/redistest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// build builds the example.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socketio")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// start starts the example as the README does, but for the Redis, and returns its
// URL.
func start(t *testing.T) (*process.Process, string) {
	t.Helper()
	need.Modules(t, ".")
	redis := "redis://" + redistest.Start(t).Addr
	chat := process.Start(t, exec.Command(build(t), "-dir", ".", "-listen", "127.0.0.1:0", "-redis", redis))
	for _, node := range []string{"node1", "node2", "node3"} {
		chat.AwaitLine(t, "backend="+node+" .*to=up")
	}
	return chat, strings.TrimPrefix(strings.TrimSpace(chat.AwaitLine(t, "Open http")), "Open ")
}

// The three kinds of messages reach those they are for on every node, a killed
// node's clients go on elsewhere, and the node comes back.
func TestChat(t *testing.T) {
	t.Parallel()
	chat, url := start(t)
	clients := interop.StartClients(t, interop.V4)
	names := []string{"ann", "bob", "cid"}
	for _, name := range names { // in turn, so that each is on a node of its own
		clients.Open(t, interop.Client{Name: name, URL: url, Cookies: true, Options: map[string]any{
			"query": map[string]string{"name": name}, "reconnectionDelay": 100,
		}})
	}
	node, socket := make(map[string]string), make(map[string]string)
	for _, e := range clients.Events("connect") {
		node[e.Client], socket[e.Client] = e.Node, e.Socket
	}
	if node["ann"] == node["bob"] || node["bob"] == node["cid"] || node["cid"] == node["ann"] {
		t.Fatalf("not on three nodes: %v", node)
	}
	heard := func(client, kind, text string) {
		t.Helper()
		clients.Await(t, client+"'s "+kind, func(events []interop.Event) bool {
			for _, e := range events {
				if e.Event == "message" && e.Client == client && e.Kind == kind && e.Text == text {
					return true
				}
			}
			return false
		})
	}
	clients.Ask(t, []string{"bob"}, "join", "pool")
	clients.Tell(t, "ann", "message", "pool", "low tide")
	heard("bob", "message", "low tide")
	clients.Tell(t, "ann", "privateMessage", socket["cid"], "psst")
	heard("cid", "privateMessage", "psst")
	clients.Tell(t, "ann", "broadcast", "high tide")
	for _, name := range names {
		heard(name, "broadcast", "high tide")
	}

	line := chat.AwaitLine(t, node["ann"]+" listens on .* pid ")
	pid, err := strconv.Atoi(regexp.MustCompile(`pid (\d+)`).FindStringSubmatch(line)[1])
	if err != nil {
		t.Fatal(err)
	}
	victim, err := os.FindProcess(pid)
	if err == nil {
		err = victim.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	clients.Await(t, "ann on another node", func(events []interop.Event) bool {
		last := ""
		for _, e := range events {
			if e.Event == "connect" && e.Client == "ann" {
				last = e.Node
			}
		}
		return last != node["ann"]
	})
	clients.Tell(t, "ann", "broadcast", "I have moved")
	heard("cid", "broadcast", "I have moved")
	chat.AwaitLines(t, "backend="+node["ann"]+" from=down to=up", 2)

	chat.Signal(t, os.Interrupt)
	if code := chat.End(t); code != 0 {
		t.Errorf("ended with %d", code)
	}
}

// Two visitors see each other on the page.
func TestPage(t *testing.T) {
	t.Parallel()
	chromium := browser.Start(t)
	_, url := start(t)
	const title = `document.querySelector('h1').textContent.match(/you are on (.*)/)?.[1]`
	first, second := chromium.Open(t, url), chromium.Open(t, url)
	if a, b := first.Read(t, "its node", title), second.Read(t, "its node", title); a == b {
		t.Errorf("both are on %s", a)
	}
	second.Read(t, "the other visitor", `document.querySelectorAll('option').length == 3 && 'there'`)
	// The second page has the keyboard: it was opened last.
	second.Type(t, "input", "Hello <b>you</b>\n")
	for _, page := range []*browser.Page{first, second} {
		line := page.Read(t, "the line", `document.querySelector('li')?.textContent`)
		if !strings.HasSuffix(line, "Hello <b>you</b>") {
			t.Errorf("the page shows %q", line)
		}
	}
}

// What is missing is said in one line.
func TestMissing(t *testing.T) {
	t.Parallel()
	program := build(t)
	for _, tt := range []struct {
		name string
		path string // PATH
		args []string
		want string
	}{
		{"server.js", os.Getenv("PATH"), nil, "socketio: no server.js in examples/socketio: run this from the root of the repository, or say -dir\n"},
		{"node", t.TempDir(), []string{"-dir", "."}, "socketio: needs node, which isn't installed (or not in PATH)\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), program, tt.args...)
			cmd.Env = []string{"PATH=" + tt.path}
			out, err := cmd.CombinedOutput()
			if string(out) != tt.want || cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("got %q, %v, want %q and exit code 1", out, err, tt.want)
			}
		})
	}
}
