package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/process"
)

// A logLine is a line of the access log.
type logLine struct {
	Msg, ID, Path, Backend string
	Status                 int
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	backend := exampletest.StartBackend(t, "a", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Got", r.Header.Get("X-Request-Id"))
	})
	file := filepath.Join(t.TempDir(), "access.log")
	flags := []string{"-listen", "127.0.0.1:0", "-backend", backend.Spec(), "-request-id", "X-Request-Id", "-access-log"}

	p := gateway(t, nil, append(flags, "json")...)
	res, err := http.Get("http://" + address(t, p) + "/one")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	id := res.Header.Get("X-Request-Id")
	if id == "" || res.Header.Get("Got") != id {
		t.Errorf("the answer's ID is %q, the backend got %q", id, res.Header.Get("Got"))
	}
	lines := process.Await(t, p, "a line", func(lines []logLine) bool { return len(lines) > 0 })
	if want := (logLine{"request", id, "/one", "a", 200}); lines[0] != want {
		t.Errorf("%+v, want %+v", lines[0], want)
	}

	p = gateway(t, nil, append(flags, "text:"+file)...)
	ask(t, http.DefaultClient, "http://"+address(t, p)+"/two")
	p.Kill()
	text, err := os.ReadFile(file)
	if err != nil || strings.Count(string(text), "\n") != 1 || !strings.Contains(string(text), "path=/two") {
		t.Errorf("%q, %v", text, err)
	}
}

func TestErrorPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "5xx.txt"), []byte("we are sorry: {{status}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := gateway(t, nil, "-listen", "127.0.0.1:0", "-backend", "a=http://127.0.0.1:1", "-error-pages", dir)
	if code, text := ask(t, http.DefaultClient, "http://"+address(t, p)); text != fmt.Sprint("we are sorry: ", code) {
		t.Errorf("%d %q", code, text)
	}
}
