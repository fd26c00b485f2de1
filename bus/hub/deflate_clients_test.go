package hub_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/internal/browser"
	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
)

// echo is a hub's handler that compresses, and sends back what comes.
var echo = &hub.HandlerOptions{
	Compress:  true,
	ReadLimit: 1 << 20,
	Message:   func(_ context.Context, m *hub.Member, f *hub.Frame) { m.Send(f) },
}

// The WebSocket of Node that Socket.IO uses, too, exchanges fragmented messages with a hub, with
// each way to offer compression.
func TestHandlerDeflateNode(t *testing.T) {
	t.Parallel()
	modules := filepath.Join("..", "..", "internal", "interop", "testdata", "v4")
	node := need.Modules(t, modules)
	ws, err := filepath.Abs(filepath.Join(modules, "node_modules", "ws"))
	if err != nil {
		t.Fatal(err)
	}
	s := serveHub(t, startHub(t, nil, nil), echo)
	p := process.Start(t, exec.Command(node, filepath.Join("testdata", "deflate.cjs"), s.URL, ws))
	type outcome struct {
		Name, Error string
		Code, Came  int
		Extensions  string
	}
	want := map[string]bool{ // whether compression is agreed upon
		"off": false, "default": true, "no context takeover": true, "largest window": true,
		"small window of the server": false, "small window of the client": true,
	}
	for _, got := range process.Await(t, p, "all clients", func(all []outcome) bool { return len(all) >= len(want) }) {
		agreed := got.Extensions != ""
		if got.Error != "" || got.Code != 1000 || got.Came != 14 || agreed != want[got.Name] {
			t.Errorf("%+v", got)
		}
	}
}

// Chromium exchanges messages with a hub that compresses, and so does the JavaScript client.
func compresses(t *testing.T, chromium *browser.Browser) {
	s := newSite(t)
	handler := startHub(t, nil, nil).Handler(echo)
	s.current.Store(&handler)
	p := chromium.Open(t, s.URL)
	p.Run(t, "messages", `
		const text = '{"id":17,"text":"söme text"},';
		window.sent = [0, 1, 10, 50, 1000, 30_000].map((n) => text.repeat(n));
		window.bytes = new Uint8Array(10_000);
		crypto.getRandomValues(bytes);
		window.came = [];
		window.socket = new WebSocket(location.origin.replace('http', 'ws') + '/ws');
		socket.binaryType = 'arraybuffer';
		socket.onmessage = ({ data }) => came.push(data);
		socket.onopen = () => [...sent, bytes].forEach((message) => socket.send(message));`)
	p.Read(t, "the same messages", `came.length === 7 && sent.every((text, i) => text === came[i]) && String(new Uint8Array(came[6])) === String(bytes)`)
	if got := p.Read(t, "what was agreed", "socket.extensions"); got != agreed {
		t.Errorf("agreed upon %q", got)
	}
	p.Read(t, "the client", "told('open', undefined)")
	p.Run(t, "send", `limpet.send(sent[4]); limpet.send(bytes)`)
	p.Read(t, "the answers", `heard(undefined)[0] === sent[4] && String(heard(undefined)[1]) === String(bytes)`)
}
