package interop_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/limpet-go/limpet/internal/interop"
	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
)

// To Socket.IO nodes written in Go, clients without cookies come home by their
// session IDs.
func TestGoSocketIO(t *testing.T) {
	t.Parallel()
	program := need.Module(t, "../../examples/go-socketio")
	clients := interop.StartClients(t, interop.V2)
	example := process.Start(t, exec.Command(program, "-listen", "127.0.0.1:0"))
	line := example.AwaitLine(t, "listening at http")
	url := line[strings.Index(line, "http"):]

	var names []string
	for i := range 9 {
		name := fmt.Sprint("client", i)
		names = append(names, name)
		// Not upgrading: go-socket.io 1.7.0 refuses some requests then, asked directly too.
		transports := [][]string{polling, websocket}[i%2]
		clients.Open(t, interop.Client{Name: name, URL: url, Options: map[string]any{"transports": transports}})
	}
	for range 5 {
		for name, answer := range clients.Ask(t, names, "echo", "hello") {
			if answer != "hello" {
				t.Errorf("%s got %q", name, answer)
			}
		}
	}
	home := homes(clients.Events("connect"))
	for _, node := range []string{"node1", "node2", "node3"} {
		if len(clientsOf(node, home)) == 0 {
			t.Errorf("nobody is at %s: %v", node, home)
		}
	}
	if bad := slices.Concat(clients.Events("refused"), clients.Events("disconnect")); len(bad) > 0 {
		t.Errorf("clients weren't at home: %+v", bad)
	}
	example.Signal(t, syscall.SIGTERM)
	if code := example.End(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
