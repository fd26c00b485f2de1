package main

import (
	"context"
	"encoding/base64"
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
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/process"
	"github.com/limpet-go/limpet/internal/redistest"
)

// adminAddress waits until operators are served, on a port.
func adminAddress(t *testing.T, p *process.Process) string {
	t.Helper()
	return regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(p.AwaitLine(t, "serving operators"))
}

// ask returns the status and the body of an answer to a GET.
func ask(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	return call(t, c, "GET", url, "", "")
}

// call returns the status and the body of an answer.
func call(t *testing.T, c *http.Client, method, url, authorization, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// SIGTERM turns readiness red while everything is served, and only then begins the drain.
func TestLameDuck(t *testing.T) {
	t.Parallel()
	b := exampletest.StartBackend(t, "a", nil)
	p := gateway(t, nil, "-listen", "127.0.0.1:0", "-admin", "127.0.0.1:0", "-backend", b.Spec(), "-lame-duck", "5s", "-drain", "2s")
	url, admin := "http://"+address(t, p), "http://"+adminAddress(t, p)
	for _, page := range []string{url, admin + "/readyz"} {
		if code, text := ask(t, http.DefaultClient, page); code != 200 {
			t.Errorf("%s: %d %q", page, code, text)
		}
	}
	p.Signal(t, syscall.SIGTERM)
	p.AwaitLine(t, "not ready any more")
	if code, text := ask(t, http.DefaultClient, admin+"/readyz"); code != 503 || !strings.Contains(text, "shutting down") {
		t.Errorf("/readyz: %d %q", code, text)
	}
	if code, text := ask(t, http.DefaultClient, admin+"/livez"); code != 200 {
		t.Errorf("/livez: %d %q", code, text)
	}
	for range 3 { // the answers end their connections
		if code, text := ask(t, http.DefaultClient, url); code != 200 {
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
	p.AwaitLine(t, "-lame-duck only delays the end without -admin")
	ask(t, http.DefaultClient, "http://"+address(t, p)) // it serves
	p.Signal(t, syscall.SIGTERM)
	p.AwaitLine(t, "another signal ends")
	p.Signal(t, syscall.SIGTERM)
	if code := p.End(t); code != -1 {
		t.Errorf("exit code %d, want the end by a signal", code)
	}
}

// Nobody sees or steers more than -admin and -admin-token-file say.
func TestAdmin(t *testing.T) {
	t.Parallel()
	const token = "5eed5eed5eed5eed"
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := exampletest.StartBackend(t, "a", nil)
	start := func(t *testing.T, args ...string) (base string) {
		p := gateway(t, nil, append([]string{"-listen", "127.0.0.1:0", "-admin", "127.0.0.1:0", "-backend", b.Spec()}, args...)...)
		return "http://" + adminAddress(t, p)
	}
	type want struct {
		method, path, authorization, body string
		status                            int
		says                              string
	}
	const drain = "/api/backends/a/drain"
	basic := func(password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte("ann:"+password))
	}
	for _, tt := range []struct {
		name string
		args []string
		want []want
	}{
		{"port", nil, []want{
			{"GET", "/livez", "", "", 200, "ok"},
			{"GET", "/readyz", "", "", 200, "ok"},
			{"GET", "/metrics", "", "", 200, "limpet_backend_state{"},
			{"GET", "/", "", "", 200, "<html"},
			{"GET", "/api/state", "", "", 200, `"steering":false`},
			{"POST", drain, "", "{}", 403, "error"},
			{"POST", drain, "Bearer " + token, "{}", 403, "error"}, // there is no token
			{"GET", "/api/backends/a", "", "", 200, `"state":"up"`},
		}},
		{"port with a token", []string{"-admin-token-file", file}, []want{
			{"GET", "/livez", "", "", 200, "ok"},
			{"GET", "/readyz", "", "", 200, "ok"},
			{"GET", "/metrics", "", "", 200, "limpet_backend_state{"},
			{"GET", "/", "", "", 401, "-admin-token-file"},
			{"GET", "/api/state", "", "", 401, "-admin-token-file"},
			{"GET", "/api/state", "Bearer " + token + "5", "", 401, "-admin-token-file"},
			{"GET", "/api/state", "Bearer", "", 401, "-admin-token-file"},
			{"GET", "/api/state", basic(""), "", 401, "-admin-token-file"},
			{"POST", drain, "", "{}", 401, "-admin-token-file"},
			{"GET", "/api/state", basic(token), "", 200, `"steering":true`},
			{"GET", "/api/state", "Bearer " + token, "", 200, `"state":"up"`},
			{"POST", drain, "Bearer " + token, "{}", 200, `"state":"draining"`},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			base := start(t, tt.args...)
			for _, w := range tt.want {
				status, text := call(t, http.DefaultClient, w.method, base+w.path, w.authorization, w.body)
				if status != w.status || !strings.Contains(text, w.says) {
					t.Errorf("%s %s with %q: %d %q, want %d and %q", w.method, w.path, w.authorization, status, text, w.status, w.says)
				}
			}
		})
	}
}

// Who may open the socket may steer, and nobody else may open it.
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
		code, text := call(t, client, "POST", "http://admin/api/backends/a/drain", "", `{"within":"1h"}`)
		if code != 200 || !strings.Contains(text, `"wish":"drain"`) {
			t.Errorf("drain: %d %q", code, text)
		}
		p.AwaitLine(t, "who=socket")
		if code, text := call(t, client, "POST", "http://rebound.example/api/backends/a/undrain", "", "{}"); code != 403 {
			t.Errorf("by the name of another site: %d %q", code, text)
		}
		p.Kill()
	}
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".limpet-*")); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

// What is at the socket's path and is no socket is never removed.
func TestAdminSocketPathTaken(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("a socket's file has another type there")
	}
	dir := t.TempDir()
	file, link := filepath.Join(dir, "keys"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link} {
		p := gateway(t, nil, "-listen", "127.0.0.1:0", "-admin", "unix:"+path, "-backend", "a=http://127.0.0.1:1")
		p.AwaitLine(t, "-admin: "+regexp.QuoteMeta(path)+" is there already, and is no socket")
		if text, err := os.ReadFile(file); err != nil || string(text) != "secret" {
			t.Errorf("the file is now %q, %v", text, err)
		}
		if target, err := os.Readlink(link); err != nil || target != file {
			t.Errorf("the link is now %q, %v", target, err)
		}
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

// The status page tells of Redis, and metrics do.
func TestAdminRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	url := "redis://" + server.Addr
	p := gateway(t, nil, "-listen", "127.0.0.1:0", "-admin", "127.0.0.1:0", "-backend", "a=http://127.0.0.1:1", "-redis", url, "-bus", url)
	base := "http://" + adminAddress(t, p)
	for late := time.Now().Add(process.Patience); ; {
		_, text := ask(t, http.DefaultClient, base+"/api/state")
		_, figures := ask(t, http.DefaultClient, base+"/metrics")
		if strings.Contains(text, `"name":"store","ok":true`) && strings.Contains(text, `"name":"bus","ok":true`) &&
			strings.Contains(figures, "limpet_store_") && strings.Contains(figures, "limpet_bus_") {
			break
		}
		if time.Now().After(late) {
			t.Fatalf("%s\n%s", text, figures)
		}
	}
}
