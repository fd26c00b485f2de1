package main

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/internal/process"
)

// TestMain lets the test binary be the program.
func TestMain(m *testing.M) {
	if os.Getenv("LIMPET_TEST_GATEWAY") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func gateway(t *testing.T, env []string, args ...string) *process.Process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return gatewayOf(t, exe, env, args...)
}

// gatewayOf starts a gateway that is this test's program, or one that was built.
func gatewayOf(t *testing.T, program string, env []string, args ...string) *process.Process {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(append(os.Environ(), "LIMPET_TEST_GATEWAY=1", "LIMPET_KEYS="), env...)
	return process.Start(t, cmd)
}

// address waits until the gateway listens.
func address(t *testing.T, p *process.Process) string {
	t.Helper()
	return regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(p.AwaitLine(t, "msg=listening|INFO listening"))
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	const a, b = "a=http://127.0.0.1:1", "b=http://127.0.0.1:2"
	for _, tt := range []struct {
		args, says string
		env        string
	}{
		{"", "no backend", ""},
		{"-backend a", "ID=URL", ""},
		{"-discover nodes:3000", "dns://host:port", ""},
		{"-discover dns://nodes", "port of the backends as a number", ""},
		{"-discover k8s://ns/svc:http", "KUBERNETES_SERVICE_HOST isn't set", "KUBERNETES_SERVICE_HOST="},
		{"-discover dns://nodes:3000 -affinity cookiemap:server", "give each by -backend", ""},
		{"-backend a=ftp://x", "want http://host:port", ""},
		{"-backend a=http://user:hidden@127.0.0.1:1", "-backend: ", ""},
		{"-backend " + a + " -backend " + a, "a", ""},
		{"-backend " + a + " -affinity sticky", "-affinity", ""},
		{"-backend " + a + " -affinity header", "-affinity", ""},
		{"-backend " + a + " -affinity ip:x", "-affinity", ""},
		{"-backend " + a + " -affinity engineio:x", "-affinity", ""},
		{"-backend " + a + " -affinity route", "-affinity", ""},
		{"-backend " + a + " -affinity route:a;b", "a;b", ""},
		{"-backend " + a + " -affinity header:X-User:", "X-User:", ""},
		{"-backend " + a + " -affinity cookie,ip,cookie", "twice", ""},
		{"-backend " + a + " -affinity cookie,engineio -key " + strings.Repeat("5eed", 16), "put the EngineIO first", ""},
		{"-backend " + a + " -redis hidden@nowhere", "-redis", ""},
		{"-backend " + a + " -bus hidden@nowhere", "-bus", ""},
		{"-backend " + a + " -affinity appcookie:sid -redis=", "-redis", ""},
		{"-backend " + a + " -affinity cookie -redis redis://:hidden@localhost", "-redis", ""}, // with a cookie, which learns nothing
		{"-backend " + a + " -picker best", "-picker", ""},
		{"-backend " + a + " -trusted 10.0.0.0/33", "-trusted", ""},
		{"-backend " + a + " -proxy-protocol 10.0.0.0/33", "want CIDRs or addresses, as 10.0.0.0/8", ""},
		{"-backend " + a + " -local-addr localhost", "want addresses of this machine, as 10.0.0.2,10.0.0.3", ""},
		{"-backend " + a + " -local-addr 192.0.2.1", "no address of this machine", ""},
		{"-backend " + a + " -key hidden-and-short", "at least 32 bytes", ""},
		{"-backend " + a + " -key=", "at least 32 bytes", ""},
		{"-backend " + a + " -key " + strings.Repeat("00", 32), "openssl rand", ""},
		{"-backend " + a, "at least 32 bytes", "LIMPET_KEYS=hidden-and-short"},
		{"-backend " + a + " -key-file /does/not/exist", "-key-file", ""},
		{"-backend " + a + " -key-file " + os.DevNull, "no key", ""},
		{"-backend " + a + " -key-file main.go", "openssl rand -hex 32", ""},
		{"-backend " + a + " -listen 8080", "-listen \"8080\": want HOST:PORT, or :PORT", ""},
		{"-backend " + a + " -listen localhost", "-listen \"localhost\": want HOST:PORT, or :PORT", ""},
		{"-backend " + a + " -tls-cert x", "-tls-key", ""},
		{"-backend " + a + " -health-interval 0s", "-health-interval", ""},
		{"-backend " + a + " -drain 10", "its unit, as 10s", ""},
		{"-backend " + a + " -health nowhere", "nowhere", ""},
		{"-backend " + a + " -health-keepalive", "-health PATH", ""},
		{"-backend " + a + " -slow-start -1s", "SlowStart", ""},
		{"-backend " + a + " -hash-bound 1", "HashBound", ""},
		{"-backend " + a + " -backend-tunnels -1", "Tunnels", ""},
		{"-backend " + a + " -shares canary", "GROUP=N", ""},
		{"-backend " + a + " -shares canary=1,canary=2", "twice", ""},
		{"-backend " + a + " -shares canary=1", `no backend is in the group "canary"`, ""},
		{"-backend " + a + " -shares =0", "-shares", ""},
		{"-backend " + a + " -lame-duck -1s", "-lame-duck", ""},
		{"-backend " + a + " -rebalance -1s", "-rebalance", ""},
		{"-backend " + a + " -rebalance 2m -affinity ip", "would move nobody", ""},
		{"-backend " + a + " -request-id a:b", "a:b", ""},
		{"-backend " + a + " -admin 9090", "HOST:PORT", ""},
		{"-backend " + a + " -admin unix:", "unix:/path", ""},
		{"-backend " + a + " -admin-token-file " + os.DevNull, "at least 16 characters", ""},
		{"-backend " + a + " -admin-token-file main.go", "-admin, which is missing", ""},
		{"-backend " + a + " -admin :0 -admin-token-file /does/not/exist", "-admin-token-file", ""},
		{"-backend " + a + " -access-log yaml", "off, json or text", ""},
		{"-backend " + a + " -access-log json:", "-access-log", ""},
		{"-backend " + a + " -access-log off:/tmp/x", "/tmp/x", ""},
		{"-backend " + a + " -error-pages /does/not/exist", "-error-pages /does/not/exist", ""},
		{"-backend " + a + " -error-pages main.go", "-error-pages main.go", ""},
		{"-backend " + a + " -origin https://*", "-origin", ""},
		{"-backend " + a + " -limit-rate -1", "-limit-rate -1", ""},
		{"-backend " + a + " -limit-tunnels 2000000", "-limit-tunnels 2000000", ""},
		{"-backend " + a + " -backend " + b + " more", "more", ""},
		{"-what", "-what", ""},
	} {
		t.Run(tt.args+tt.env, func(t *testing.T) {
			t.Parallel()
			exe, _ := os.Executable()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // it would serve if nothing is wrong
			defer cancel()
			cmd := exec.CommandContext(ctx, exe, strings.Fields(tt.args)...)
			cmd.Env = append(os.Environ(), "LIMPET_TEST_GATEWAY=1", tt.env)
			out, _ := cmd.CombinedOutput()
			line := string(out)
			if cmd.ProcessState.ExitCode() != 2 || strings.Count(line, "\n") != 1 || !strings.Contains(line, tt.says) {
				t.Errorf("exit code %d, printed %q; want 2 and one line with %q", cmd.ProcessState.ExitCode(), line, tt.says)
			}
			if strings.Contains(line, "hidden") {
				t.Errorf("the error holds a key: %q", line)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	p := gateway(t, nil, "-h")
	p.AwaitLine(t, "-backend")
	if code := p.End(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// The program is a doctor if it is asked to be one.
func TestDoctorFlag(t *testing.T) {
	t.Parallel()
	p := gateway(t, nil, "-doctor", "http://127.0.0.1:1")
	p.AwaitLine(t, "can't tell")
	if code := p.End(t); code != 2 {
		t.Errorf("exit code %d", code)
	}
}

// Each way of stickiness brings a client home, and keys may come from anywhere.
func TestAffinities(t *testing.T) {
	t.Parallel()
	node := func(id string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := r.Cookie("sid"); err != nil {
				http.SetCookie(w, &http.Cookie{Name: "sid", Value: "session-of-" + id})
			}
			io.WriteString(w, id)
		}))
		t.Cleanup(s.Close)
		return id + "=" + s.URL
	}
	a, b := node("a"), node("b")
	key, old := strings.Repeat("5eed", 16), strings.Repeat("01d0", 16)
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(key+"\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name      string
		args, env []string
		query     string
		header    string
	}{
		{"default", nil, nil, "", ""},
		{"key", []string{"-key", key}, nil, "", ""},
		{"key file", []string{"-key-file", file}, nil, "", ""},
		{"key in the environment", nil, []string{"LIMPET_KEYS=" + key + "," + old}, "", ""},
		{"cookie map", []string{"-affinity", "cookiemap:server"}, nil, "", ""},
		{"address", []string{"-affinity", "ip"}, nil, "", ""},
		{"header", []string{"-affinity", "header:X-User"}, nil, "", "ann"},
		{"query", []string{"-affinity", "query:user"}, nil, "?user=ann", ""},
		{"application's cookie", []string{"-affinity", "appcookie:sid"}, nil, "", ""},
		{"prefix", []string{"-affinity", "prefix:sid", "-pin-header"}, nil, "", ""},
		{"sealed prefix", []string{"-affinity", "prefix:sid", "-key", key}, nil, "", ""},
		{"route", []string{"-affinity", "route:SESSION"}, nil, ";SESSION=x.b", ""},
		{"route by two names", []string{"-affinity", "route:SESSION|session"}, nil, ";session=x.b", ""},
		{"chain", []string{"-affinity", "cookie,ip", "-picker", "leastconn"}, nil, "", ""},
		{"session ID, then cookie", []string{"-affinity", "engineio,cookie"}, nil, "?EIO=4&transport=polling", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := gateway(t, tt.env, append([]string{"-listen", "127.0.0.1:0", "-backend", a, "-backend", b}, tt.args...)...)
			url := "http://" + address(t, p) + "/" + tt.query
			var cookies []*http.Cookie
			var home string
			for i := range 5 {
				req, _ := http.NewRequestWithContext(t.Context(), "GET", url, nil)
				req.Header.Set("X-User", tt.header)
				for _, c := range cookies {
					req.AddCookie(c)
				}
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if i == 0 {
					home, cookies = string(body), res.Cookies()
				}
				if slices.Contains(tt.args, "-pin-header") != (res.Header.Get("Limpet-Pin") != "") {
					t.Errorf("Limpet-Pin: %q", res.Header.Get("Limpet-Pin"))
				}
				if res.StatusCode != 200 || string(body) != home {
					t.Errorf("request %d: %d from %q, home is %q", i, res.StatusCode, body, home)
				}
			}
		})
	}
}

// SIGTERM drains: tunnels get a close frame, and the process ends by itself.
func TestDrain(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		_, _, _ = conn.Read(context.WithoutCancel(r.Context()))
		_ = conn.CloseNow()
	}))
	t.Cleanup(s.Close)
	p := gateway(t, nil, "-listen", "127.0.0.1:0", "-backend", "a="+s.URL, "-drain", "2s")
	conn, _, err := websocket.Dial(t.Context(), "http://"+address(t, p), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	p.Signal(t, syscall.SIGTERM)
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("read %v, want close code 1012", err)
	}
	if code := p.End(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// Clients go back to a backend that has come back.
func TestRebalance(t *testing.T) {
	t.Parallel()
	var ill atomic.Bool
	at := make(chan string, 1000)
	flags := []string{"-listen", "127.0.0.1:0", "-health", "/healthz", "-health-interval", "50ms", "-rebalance", "2s", "-key", strings.Repeat("5eed", 16)}
	ill.Store(true)
	for _, id := range []string{"a", "b"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" {
				if id == "b" && ill.Load() {
					http.Error(w, "ill", http.StatusServiceUnavailable)
				}
				return
			}
			conn, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			at <- id
			_, _, _ = conn.Read(context.WithoutCancel(r.Context()))
			_ = conn.CloseNow()
		}))
		t.Cleanup(s.Close)
		flags = append(flags, "-backend", id+"="+s.URL)
	}
	p := gateway(t, nil, flags...)
	url := "http://" + address(t, p)
	p.AwaitLine(t, "backend=b .*to=draining")
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	for range 20 {
		jar, _ := cookiejar.New(nil)
		clients.Go(func() {
			for ctx.Err() == nil {
				conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: &http.Client{Jar: jar}})
				if err != nil {
					continue
				}
				_, _, _ = conn.Read(ctx)
				_ = conn.CloseNow()
			}
		})
	}
	for range 20 {
		if id := <-at; id != "a" {
			t.Errorf("a client has come to %s", id)
		}
	}
	ill.Store(false)
	for range 5 {
		if id := <-at; id != "b" {
			t.Errorf("a client was moved to %s", id)
		}
	}
	p.AwaitLine(t, "rebalancing begins")
}

// A client that keeps no cookies stays where the rest of the list has it.
func TestCookieMapFirst(t *testing.T) {
	t.Parallel()
	flags := []string{"-listen", "127.0.0.1:0", "-affinity", "cookiemap:server,ip"}
	for _, id := range []string{"a", "b", "c"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, id) }))
		t.Cleanup(s.Close)
		flags = append(flags, "-backend", id+"="+s.URL)
	}
	url := "http://" + address(t, gateway(t, nil, flags...))
	ask := func(cookie string) string {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", url, nil)
		req.Header.Set("Cookie", cookie)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return string(body)
	}
	home := ask("")
	for range 5 {
		if got := ask(""); got != home {
			t.Errorf("answered by %s, home is %s", got, home)
		}
	}
	for _, id := range []string{"a", "b", "c"} {
		if got := ask("server=" + id); got != id {
			t.Errorf("with server=%s answered by %s", id, got)
		}
	}
}
