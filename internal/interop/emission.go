package interop

import (
	"os/exec"
	"testing"

	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
)

// Emission is what a node or an emitter from npm is told to do.
type Emission struct {
	NSP      string   `json:"nsp"`
	To       []string `json:"to,omitempty"`
	Except   []string `json:"except,omitempty"`
	Volatile bool     `json:"volatile,omitempty"`
	Compress *bool    `json:"compress,omitempty"`
	Timeout  int      `json:"timeout,omitempty"`  // milliseconds
	Adapter  bool     `json:"adapter,omitempty"`  // Call is of the namespace's adapter
	Call     string   `json:"call"`               // emit, socketsJoin, serverSideEmit and so on
	Callback bool     `json:"callback,omitempty"` // Call takes a function (err, result) at last
	// Args are the arguments of the call. Those that JSON doesn't have are
	// {"$binary": base64}, {"$date": milliseconds}, {"$undefined": true} and
	// {"$set": list}.
	Args []any `json:"args"`
}

// Emit has the node do something as the namespace's own, and returns the result.
func (n *Node) Emit(t testing.TB, e Emission) (result any) {
	t.Helper()
	return command(t, n.Process, &n.commands, map[string]any{"emission": e}).Result
}

// Emitter is the emitter from npm of a cluster's version.
type Emitter struct {
	*process.Process
	commands int
}

// StartEmitter starts the emitter. It ends with the test.
func StartEmitter(t testing.TB, c *Cluster) *Emitter {
	t.Helper()
	cmd := exec.Command(need.Node(t), testdata("emitter.js"), string(c.Version), c.redisPort())
	return &Emitter{Process: process.Start(t, cmd)}
}

// Emit has the emitter do something.
func (e *Emitter) Emit(t testing.TB, emission Emission) {
	t.Helper()
	command(t, e.Process, &e.commands, map[string]any{"emission": emission})
}
