package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/process"
)

// adminAddress waits until operators are served, on a port.
func adminAddress(t *testing.T, p *process.Process) string {
	t.Helper()
	return regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(p.AwaitLine(t, "serving operators"))
}

// ask returns the status and the body of an answer to a GET.
func ask(t *testing.T, c *http.Client, url, authorization string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", authorization)
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// SIGTERM turns readiness red while everything is served, and only then begins the drain.
func TestLameDuck(t *testing.T) {
	t.Parallel()
	b := exampletest.StartBackend(t, "a", nil)
	p := gateway(t, nil, "-listen", "127.0.0.1:0", "-admin", "127.0.0.1:0", "-backend", b.Spec(), "-lame-duck", "5s", "-drain", "2s")
	url, admin := "http://"+address(t, p), "http://"+adminAddress(t, p)
	for _, page := range []string{url, admin + "/readyz"} {
		if code, text := ask(t, http.DefaultClient, page, ""); code != 200 {
			t.Errorf("%s: %d %q", page, code, text)
		}
	}
	p.Signal(t, syscall.SIGTERM)
	p.AwaitLine(t, "not ready any more")
	if code, text := ask(t, http.DefaultClient, admin+"/readyz", ""); code != 503 || !strings.Contains(text, "shutting down") {
		t.Errorf("/readyz: %d %q", code, text)
	}
	if code, text := ask(t, http.DefaultClient, admin+"/livez", ""); code != 200 {
		t.Errorf("/livez: %d %q", code, text)
	}
	for range 3 { // the answers end their connections
		if code, text := ask(t, http.DefaultClient, url, ""); code != 200 {
			t.Errorf("while readiness is red: %d %q", code, text)
		}
	}
	conn, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("read %v, want close code 1012", err)
	}
	p.AwaitLine(t, "msg=draining|INFO draining")
	if code := p.End(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestSecondSignal(t *testing.T) {
	t.Parallel()
	b := exampletest.StartBackend(t, "a", nil)
	p := gateway(t, nil, "-listen", "127.0.0.1:0", "-backend", b.Spec(), "-lame-duck", "1h")
	ask(t, http.DefaultClient, "http://"+address(t, p), "") // it serves
	p.Signal(t, syscall.SIGTERM)
	p.AwaitLine(t, "another signal ends")
	p.Signal(t, syscall.SIGTERM)
	if code := p.End(t); code != -1 {
		t.Errorf("exit code %d, want the end by a signal", code)
	}
}

func TestAdminSocket(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a socket's file has no mode there")
	}
	path := filepath.Join(t.TempDir(), "admin.sock")
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}
	for range 2 { // the second one finds the file of the first
		p := gateway(t, nil, "-listen", "127.0.0.1:0", "-admin", "unix:"+path, "-backend", "a=http://127.0.0.1:1")
		p.AwaitLine(t, "serving operators.*addr="+regexp.QuoteMeta(path)+"$")
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("the socket's mode is %v", info.Mode())
		}
		if code, text := ask(t, client, "http://admin/livez", ""); code != 200 {
			t.Errorf("/livez: %d %q", code, text)
		}
		p.Kill()
	}
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".limpet-*")); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

// Whoever listens beyond this machine is told what that means.
func TestAdminWarning(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		addr  string
		warns bool
	}{{"127.0.0.1:0", false}, {"localhost:0", false}, {":0", true}} {
		p := gateway(t, nil, "-listen", "127.0.0.1:0", "-admin", tt.addr, "-backend", "a=http://127.0.0.1:1")
		first := p.AwaitLine(t, "isn't loopback|INFO listening|msg=listening")
		if warns := strings.Contains(first, "isn't loopback"); warns != tt.warns {
			t.Errorf("-admin %s: warned %v", tt.addr, warns)
		}
	}
}
