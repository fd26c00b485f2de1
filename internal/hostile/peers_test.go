package hostile_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
)

// How the peers are configured: on a Unix socket, with a connection to the backend
// for each request.
const (
	nginxConfig = `daemon off; master_process off; %[1]s error_log stderr crit; pid %[2]s/pid;
events { worker_connections 512; }
http {
  access_log off; client_body_temp_path %[2]s/a; proxy_temp_path %[2]s/b; fastcgi_temp_path %[2]s/c; uwsgi_temp_path %[2]s/d; scgi_temp_path %[2]s/e;
  server { listen unix:%[2]s/socket; location / { proxy_pass http://%[3]s; proxy_http_version 1.1; proxy_set_header Host $http_host; } }
}
`
	haproxyConfig = `defaults
  mode http
  option httpclose
  timeout connect 5s
  timeout client 5s
  timeout server 5s
listen all
  bind unix@%[2]s/socket
  server a %[3]s
`
)

// Where nginx and HAProxy make something else of a request than Limpet is logged.
// Nothing is asserted: what Limpet may make of a request is TestRequests' to say.
func TestPeers(t *testing.T) {
	t.Parallel()
	paths := map[string]string{"nginx": need.Program(t, "nginx", "nginx", "/usr/sbin/nginx"), "HAProxy": need.Program(t, "haproxy", "haproxy", "/usr/sbin/haproxy")}
	limpet := newRig(t)
	columns := []string{"Limpet", "nginx", "HAProxy"}
	asks := map[string]func(send string) string{"Limpet": func(send string) string {
		return limpet.backend.probe("tcp", limpet.addr, send, limpet.pool.Transport().CloseIdleConnections)
	}}
	for name, config := range map[string]string{"nginx": nginxConfig, "HAProxy": haproxyConfig} {
		dir, err := os.MkdirTemp("", "") // a socket's path must be short
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		user := ""
		if os.Geteuid() == 0 {
			user = "user root;"
		}
		b := newBackend(t)
		file, socket := filepath.Join(dir, "config"), filepath.Join(dir, "socket")
		if err := os.WriteFile(file, fmt.Appendf(nil, config, user, dir, b.addr), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"-db", "-f", file}
		if name == "nginx" {
			args = []string{"-p", dir, "-e", "stderr", "-c", file}
		}
		process.Start(t, exec.CommandContext(t.Context(), paths[name], args...))
		for end := time.Now().Add(patience); !strings.HasPrefix(b.probe("unix", socket, get("/"), func() {}), "200"); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s doesn't serve", name)
			}
		}
		asks[name] = func(send string) string { return b.probe("unix", socket, send, func() {}) }
	}
	var table strings.Builder
	end := time.Now().Add(20 * time.Second)
	for _, part := range tables {
		for _, r := range part.rows {
			if strings.ContainsAny(r.send, "␆␄✂") || len(r.send) > 10_000 || len(endings(r.back)[0].statuses) > 1 {
				continue // it isn't about the first answer alone
			}
			if time.Now().After(end) {
				t.Logf("a slow machine: the rows from %q on are left out", r.name)
				break
			}
			saw := make([]string, len(columns))
			var all sync.WaitGroup
			for i, name := range columns {
				all.Go(func() { saw[i] = asks[name](r.send) })
			}
			all.Wait()
			if saw[1] != saw[0] || saw[2] != saw[0] {
				fmt.Fprintf(&table, "%s, %.40q: %s\n", part.name, r.name, saw)
			}
		}
	}
	t.Logf("where one of %s differs, with what reached the backend:\n%s", columns, table.String())
}

// probe sends a request and returns the status of the final answer, and what of it
// reached b. settle has the gateway close its connections to b that are idle.
func (b *backend) probe(network, addr, send string, settle func()) string {
	conn, err := net.Dial(network, addr)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(150 * time.Millisecond)) // a gateway that waits for more is no surprise
	c := newClient(conn)
	io.WriteString(c, wire(send))
	saw := "100"
	for saw[0] == '1' && saw != "101" {
		m, err := c.answer(strings.HasPrefix(send, "HEAD "))
		switch {
		case err == nil:
			saw = m.status()
		case isTimeout(err):
			saw = "waits"
		default:
			saw = "closes"
		}
	}
	conn.Close()
	for range 100 { // a tunnel that goes on is no surprise either
		if settle(); b.open() == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	got, _, fault := b.forget()
	for _, m := range got {
		saw += fmt.Sprintf(" (%.60q at %q, %d bytes)", m.start, m.get("Host"), len(m.body))
	}
	if fault != nil {
		saw += " " + fault.Error()
	}
	return saw
}
