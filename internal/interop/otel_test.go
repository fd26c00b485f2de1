package interop_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	ws "github.com/coder/websocket"

	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
)

// A span is one that the exporter of OpenTelemetry prints.
type span struct {
	Name                string
	SpanContext, Parent struct{ TraceID, SpanID string }
	Attributes          attributes
	Resource            attributes
}

type attributes []struct {
	Key   string
	Value struct{ Value any }
}

// get returns the value of an attribute as text, "" if there is none.
func (a attributes) get(key string) string {
	for _, attribute := range a {
		if attribute.Key == key {
			return fmt.Sprint(attribute.Value.Value)
		}
	}
	return ""
}

// A client's trace goes on across the gateway and the node, and has its WebSocket.
func TestOpenTelemetry(t *testing.T) {
	t.Parallel()
	program := need.Module(t, "../../examples/otel")
	example := process.Start(t, exec.Command(program, "-listen", "127.0.0.1:0"))
	line := example.AwaitLine(t, "listening at http")
	url := line[strings.Index(line, "http"):]
	const trace, client = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	parent := http.Header{"Traceparent": {"00-" + trace + "-" + client + "-01"}}

	req, err := http.NewRequestWithContext(t.Context(), "GET", url+"/hello?secret=x", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = parent.Clone()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	conn, _, err := ws.Dial(t.Context(), url+"/ws", &ws.DialOptions{HTTPHeader: parent})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Write(t.Context(), ws.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn.Close(ws.StatusNormalClosure, "")
	process.Await(t, example, "five spans", func(spans []span) bool { return len(spans) == 5 })
	example.Signal(t, syscall.SIGTERM)
	if code := example.End(t); code != 0 {
		t.Errorf("exit code %d", code)
	}

	// find returns the only span of a service with a name and a parent.
	find := func(service, name, parent, path string) span {
		t.Helper()
		var found []span
		for _, s := range process.Printed[span](example) {
			if s.SpanContext.TraceID == trace && s.Name == name && s.Parent.SpanID == parent &&
				strings.HasPrefix(s.Resource.get("service.name"), service) && s.Attributes.get("url.path") == path {
				found = append(found, s)
			}
		}
		if len(found) != 1 {
			t.Fatalf("%d spans %q of %s below %s", len(found), name, service, parent)
		}
		return found[0]
	}
	check := func(s span, want map[string]string) {
		t.Helper()
		for key, value := range want {
			if got := s.Attributes.get(key); got != value {
				t.Errorf("%s is %q in the span %s, want %q", key, got, s.Name, value)
			}
		}
	}
	request := find("gateway", "GET", client, "/hello")
	node := find("node-", "GET", request.SpanContext.SpanID, "/hello")
	check(request, map[string]string{
		"http.request.method": "GET", "http.response.status_code": "200", "url.scheme": "http", "url.query": "",
		"client.address": "127.0.0.1", "network.protocol.version": "1.1",
		"limpet.backend": node.Resource.get("service.name"), "limpet.pin": "new", "limpet.source": "backend", "limpet.attempts": "1",
	})
	handshake := find("gateway", "GET", client, "/ws")
	check(handshake, map[string]string{"http.response.status_code": "101"})
	tunnel := find("gateway", "tunnel", handshake.SpanContext.SpanID, "")
	check(tunnel, map[string]string{
		"limpet.backend": handshake.Attributes.get("limpet.backend"), "limpet.closed_by": "client", "limpet.close_code": "1000",
		"limpet.messages_to_client": "1", "limpet.messages_to_backend": "1",
	})
	find("node-", "GET", handshake.SpanContext.SpanID, "/ws")
}
