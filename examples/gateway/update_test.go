//go:build unix

package main

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
)

// kubectl stands in for the program of that name. It notes what it was asked to do, and at
// the deletion of a pod what the gateway says about its node.
const kubectl = `#!/bin/sh
echo "$*" >>"$NOTES/calls"
case $1 in
get) case $2 in
  secret) printf %s "$TOKEN" | base64 ;;
  pods) echo pod/node-0; echo pod/node-1 ;;
  esac ;;
port-forward) exec sleep 600 ;;
delete) curl -fsS -H "Authorization: Bearer $TOKEN" "http://127.0.0.1:$PORT/api/backends/$3" >"$NOTES/$3" ;;
esac
`

// The script of the walk-through restarts each node when nobody is there any more.
func TestUpdateNodes(t *testing.T) {
	t.Parallel()
	need.Program(t, "curl", "curl")
	const token = "5eed5eed5eed5eed"
	notes := t.TempDir()
	for name, text := range map[string]string{"token": token, "kubectl": kubectl} {
		if err := os.WriteFile(filepath.Join(notes, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	a, b := exampletest.StartBackend(t, "node-0", nil), exampletest.StartBackend(t, "node-1", nil)
	p := gateway(t, nil, "-listen", "127.0.0.1:0", "-admin", "127.0.0.1:0", "-admin-token-file", filepath.Join(notes, "token"),
		"-backend", a.Spec(), "-backend", b.Spec())
	_, port, err := net.SplitHostPort(adminAddress(t, p))
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := websocket.Dial(t.Context(), "http://"+address(t, p), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()

	script := exec.Command("deploy/update-nodes.sh")
	script.Env = append(os.Environ(), "PATH="+notes+":"+os.Getenv("PATH"), "NOTES="+notes, "TOKEN="+token, "PORT="+port, "WITHIN=1s")
	run := process.Start(t, script)
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the tunnel ended with %v", err)
	}
	if code := run.End(t); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	calls, err := os.ReadFile(filepath.Join(notes, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `get secret limpet -o jsonpath={.data.admin-token}
get pods -l app=node -o name
delete pod node-0
wait --for=condition=Ready pod/node-0 --timeout=60s
delete pod node-1
wait --for=condition=Ready pod/node-1 --timeout=60s
`
	forward := "port-forward deployment/limpet " + port + ":9090\n" // at the same time as others
	if got := string(calls); strings.Replace(got, forward, "", 1) != want || !strings.Contains(got, forward) {
		t.Errorf("kubectl was called so:\n%s\nwant:\n%s", got, forward+want)
	}
	for _, id := range []string{"node-0", "node-1"} {
		text, err := os.ReadFile(filepath.Join(notes, id))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), `"wish":"drain"`) || !strings.Contains(string(text), `"empty":true`) {
			t.Errorf("%s was deleted while it was so: %s", id, text)
		}
		code, now := call(t, http.DefaultClient, "GET", "http://127.0.0.1:"+port+"/api/backends/"+id, "Bearer "+token, "")
		if code != 200 || !strings.Contains(now, `"state":"up"`) {
			t.Errorf("in the end: %d %s", code, now)
		}
	}
}
