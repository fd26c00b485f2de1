package interop

import (
	"fmt"
	"os/exec"
	"testing"

	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
)

// Client is one Socket.IO client to be.
type Client struct {
	Name    string         `json:"name"`
	URL     string         `json:"url"`
	Cookies bool           `json:"cookies"` // keep cookies as a browser does
	Options map[string]any `json:"options"` // for socket.io-client
}

// Clients is one Node process with any number of Socket.IO clients of a version.
type Clients struct {
	*process.Process
	commands int
}

// StartClients starts the process, without any client yet.
func StartClients(t testing.TB, v Version) *Clients {
	t.Helper()
	node := need.Modules(t, testdata(string(v)))
	return &Clients{Process: process.Start(t, exec.Command(node, testdata("client.js"), string(v)))}
}

// Open connects clients and returns once each of them has had an answer from its
// node and, where its transports allow it, has upgraded to WebSocket.
func (c *Clients) Open(t testing.TB, clients ...Client) {
	t.Helper()
	c.do(t, map[string]any{"command": "open", "clients": clients})
}

// Ask has the named clients emit an event, all at once, and returns the answers
// of the nodes by client. A nil arg is left out.
func (c *Clients) Ask(t testing.TB, names []string, kind string, arg any) map[string]any {
	t.Helper()
	command := map[string]any{"command": "ask", "clients": names, "kind": kind}
	if arg != nil {
		command["arg"] = arg
	}
	return c.do(t, command)
}

// Tell has a client emit an event that isn't answered.
func (c *Clients) Tell(t testing.TB, name, kind string, args ...string) {
	t.Helper()
	c.do(t, map[string]any{"command": "tell", "clients": []string{name}, "kind": kind, "args": args})
}

// Bytes has the named clients send random bytes, one after the other, and
// compares what comes back.
func (c *Clients) Bytes(t testing.TB, names []string, size int) {
	t.Helper()
	c.do(t, map[string]any{"command": "bytes", "clients": names, "size": size})
}

// Load has every client ask for an echo every so many milliseconds from now on,
// and returns when each of them has had one.
func (c *Clients) Load(t testing.TB, every int) {
	t.Helper()
	c.do(t, map[string]any{"command": "load", "every": every})
}

// Transports returns the transport that each of the named clients is on.
func (c *Clients) Transports(t testing.TB, names []string) map[string]any {
	t.Helper()
	return c.do(t, map[string]any{"command": "transports", "clients": names})
}

// Hear has the named clients tell of each event of these kinds: see got in
// [Event].
func (c *Clients) Hear(t testing.TB, names []string, kinds ...string) {
	t.Helper()
	c.do(t, map[string]any{"command": "hear", "clients": names, "kinds": kinds})
}

// Events returns the events of a kind so far, in their order.
func (c *Clients) Events(kind string) []Event {
	var found []Event
	for _, e := range process.Printed[Event](c.Process) {
		if e.Event == kind {
			found = append(found, e)
		}
	}
	return found
}

// Await waits until done is content with all events so far.
func (c *Clients) Await(t testing.TB, what string, done func([]Event) bool) {
	t.Helper()
	process.Await(t, c.Process, what, done)
}

func (c *Clients) do(t testing.TB, args map[string]any) map[string]any {
	t.Helper()
	return command(t, c.Process, &c.commands, args).Answers
}

// command sends the next command to a process and waits until it is done.
func command(t testing.TB, p *process.Process, commands *int, args map[string]any) Event {
	t.Helper()
	*commands++
	id := *commands
	args["id"] = id
	p.Write(t, args)
	got := awaitOne(t, p, fmt.Sprintf("an answer to %v", args), func(e Event) bool {
		return e.Event == "done" && e.ID == id
	})
	if got.Error != "" {
		t.Fatalf("%v: %s", args, got.Error)
	}
	return got
}
