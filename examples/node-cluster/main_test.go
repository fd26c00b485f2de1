//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
)

// TestMain lets the test binary be the program.
func TestMain(m *testing.M) {
	if os.Getenv("LIMPET_TEST_NODE_CLUSTER") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// Clients come back to their worker, go on elsewhere when it is killed, and it
// starts again. In the end nobody is left.
func TestCluster(t *testing.T) {
	need.Node(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-listen", "127.0.0.1:0", "-script", "server.js", "-workers", "3")
	cmd.Env = append(os.Environ(), "LIMPET_TEST_NODE_CLUSTER=1")
	master := process.Start(t, cmd)
	pids := make(map[string]int)
	for _, line := range master.AwaitLines(t, "worker[1-3] listens", 3) {
		pids[strings.Fields(line)[0]] = pid(t, line)
	}
	master.AwaitLines(t, "to=up", 3)
	addr := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(master.AwaitLine(t, "at http://"))
	g := &exampletest.Gateway{Addr: addr}

	c := exampletest.NewClient(t, g)
	home := strings.Fields(strings.ReplaceAll(c.Get(t, "/").Body, ",", ""))[3]
	want := func(visit int, home string) {
		t.Helper()
		if got := c.Get(t, "/").Body; !strings.HasPrefix(got, fmt.Sprintf("visit %d to %s,", visit, home)) {
			t.Errorf("%q, want visit %d to %s", got, visit, home)
		}
	}
	want(2, home)
	conn := c.Dial(t, "/")
	if _, data, err := conn.Read(t.Context()); err != nil || string(data) != home {
		t.Errorf("the WebSocket is at %q, %v; home is %s", data, err, home)
	}
	want(3, home)

	if err := syscall.Kill(pids[home], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the WebSocket ended with %v, want close code 1012", err)
	}
	moved := c.Get(t, "/").Body
	if !strings.HasPrefix(moved, "visit 1 to ") || strings.Contains(moved, home) {
		t.Errorf("%q, want the first visit to another worker than %s", moved, home)
	}
	again := master.AwaitLines(t, home+" listens", 2)[1]
	pids[home] = pid(t, again)
	master.AwaitLine(t, "backend="+home+" from=down to=up")

	master.Signal(t, syscall.SIGTERM)
	if code := master.End(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for id, pid := range pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("%s is left behind: %v", id, err)
		}
	}
}

func pid(t *testing.T, line string) int {
	t.Helper()
	pid, err := strconv.Atoi(line[strings.LastIndex(line, " ")+1:])
	if err != nil {
		t.Fatalf("%q has no process ID", line)
	}
	return pid
}
