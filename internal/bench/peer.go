//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/internal/meter"
)

// A peer is a gateway to measure, with one worker, stickiness and health checks
// as far as it has them.
type peer struct {
	name string
	path string   // of the program, "" if it isn't installed
	ask  []string // arguments that make it print its version

	only func(*scene) bool // the cases that it is measured in; nil: all

	// command returns how to run it. It may write files to the site's dir.
	command func(path string, s site) (*exec.Cmd, error)
}

// A site is where a gateway is to run.
type site struct {
	dir      string
	port     int // of 127.0.0.1
	backends []string
	tls      bool // clients come by TLS; certificate and key are in dir
}

// version returns the first line of what the program says about itself.
func (p *peer) version() string {
	if p.ask == nil {
		return ""
	}
	said, _ := exec.Command(p.path, p.ask...).CombinedOutput()
	line, _, _ := strings.Cut(string(said), "\n")
	return strings.TrimSpace(line)
}

// allPeers returns Limpet, its example gateway built into dir, and the others.
func allPeers(ctx context.Context, dir string) ([]*peer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	gateway := filepath.Join(dir, "gateway")
	build := exec.CommandContext(ctx, "go", "build", "-o", gateway, "github.com/limpet-go/limpet/examples/gateway")
	if said, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build examples/gateway: %w\n%s", err, said)
	}
	own := &peer{name: "Limpet", path: gateway, command: limpet}
	cookie := variant(own, "-affinity cookie")
	cookie.name, cookie.only = "Limpet cookie", func(c *scene) bool { return c.pins }
	peers := []*peer{
		own,
		cookie,
		{name: "nginx", ask: []string{"-v"}, command: nginx},
		{name: "HAProxy", ask: []string{"-v"}, command: haproxy},
		{name: "Caddy", ask: []string{"version"}, command: caddy},
		{name: "ReverseProxy", path: self, command: reverseProxyCommand},
	}
	for _, p := range peers {
		if p.path == "" {
			program := strings.ToLower(p.name)
			if p.path, err = exec.LookPath(program); err != nil {
				p.path, _ = exec.LookPath("/usr/sbin/" + program) // not in every user's PATH
			}
		}
	}
	return peers, nil
}

// run starts the peer and waits until it passes a request on.
func (p *peer) run(ctx context.Context, s site, cores meter.CPUSet) (*meter.Process, int, error) {
	var err error
	if s.port, err = meter.FreePort(); err != nil {
		return nil, 0, err
	}
	if s.tls {
		if err := writeKeys(s.dir); err != nil {
			return nil, 0, err
		}
	}
	cmd, err := p.command(p.path, s)
	if err != nil {
		return nil, 0, err
	}
	proc, err := meter.Start(cmd, cores)
	if err != nil {
		return nil, 0, err
	}
	err = await(ctx, s, proc.Ended)
	if err == nil {
		err = proc.Count()
	}
	if err != nil {
		proc.Stop()
		return nil, 0, fmt.Errorf("%s: %w\n%s", p.name, err, proc.Said)
	}
	return proc, s.port, nil
}

// await waits until a gateway serves.
func await(ctx context.Context, s site, ended <-chan struct{}) error {
	var last error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		l, err := newLoad(ctx, s.port, s.tls)
		if err != nil {
			return err
		}
		v := newVisitor("GET", "/small", "", false)
		v.want = []byte(smallBody)
		f, err := l.fetcher([]*visitor{v})
		if err == nil {
			err = l.drive(0, f.next)
		}
		if last = err; err == nil {
			last = l.first
		}
		l.close()
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return errors.New("has ended")
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("doesn't serve: %w", last)
}

// descriptors is how many a process may have open.
func descriptors() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 1024
	}
	return int(min(limit.Max, 1<<20))
}

func limpet(path string, s site) (*exec.Cmd, error) { return limpetChecking("1s")(path, s) }

// variant is Limpet with more flags of examples/gateway.
func variant(limpet *peer, flags string) *peer {
	return &peer{name: "Limpet " + flags, path: limpet.path, command: limpetChecking("1s", strings.Fields(flags)...)}
}

// limpetChecking is Limpet with this time between two health checks, and more flags.
func limpetChecking(interval string, flags ...string) func(path string, s site) (*exec.Cmd, error) {
	return func(path string, s site) (*exec.Cmd, error) {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		args := []string{"-listen", "127.0.0.1:" + strconv.Itoa(s.port), "-key", hex.EncodeToString(key), "-health", "/health", "-health-interval", interval}
		if s.tls {
			args = append(args, "-tls-cert", certFile(s.dir), "-tls-key", keyFile(s.dir))
		}
		for i, addr := range s.backends {
			args = append(args, "-backend", fmt.Sprintf("node%d=http://%s", i, addr))
		}
		args = append(args, flags...)
		cmd := exec.Command(path, args...)
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
		return cmd, nil
	}
}

// nginx sticks by a map of the cookie's values, in the clear, as a cookie of its
// own has come to the free one with 1.29.6 only, and has passive health checks: a
// home that fails is backed up by the others. It resets new connections when less
// than a sixteenth of worker_connections is left, so these are more than can be
// open.
func nginx(path string, s site) (*exec.Cmd, error) {
	var user, secure, parts, homes, known, nodes string
	if s.tls {
		secure = fmt.Sprintf(" ssl; ssl_certificate %s; ssl_certificate_key %s", certFile(s.dir), keyFile(s.dir))
	}
	backends, file := s.backends, filepath.Join(s.dir, "nginx.conf")
	if os.Geteuid() == 0 {
		user = "user root;" // or the worker can't write to dir
	}
	for i, addr := range backends {
		part := fmt.Sprintf("%.2f%%", 100/float64(len(backends)))
		if i == len(backends)-1 {
			part = "*" // the rest
		}
		parts += fmt.Sprintf(" %s node%d;", part, i)
		homes += fmt.Sprintf(" node%d node%[1]d;", i)
		known += fmt.Sprintf(" node%d '';", i)
		nodes += fmt.Sprintf("  upstream node%d { server %s;", i, addr)
		for j, other := range backends {
			if j != i {
				nodes += " server " + other + " backup;"
			}
		}
		nodes += " keepalive 256; keepalive_requests 100000000; }\n"
	}
	err := os.WriteFile(file, fmt.Appendf(nil, `daemon off; worker_processes 1; pid %[1]s/nginx.pid; error_log stderr crit; %[2]s
worker_rlimit_nofile %[3]d;
events { worker_connections %[4]d; }
http {
  access_log off;
  client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  split_clients $request_id $new {%[6]s }
  map $cookie_home $node { default $new;%[7]s }
  map $cookie_home $set_home { default "home=$new; Path=/; HttpOnly";%[8]s }
%[9]s  server {
    listen 127.0.0.1:%[5]d backlog=4096%[10]s;
    keepalive_requests 100000000;
    location / {
      proxy_pass http://$node;
      proxy_http_version 1.1;
      proxy_read_timeout 1h;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      add_header Set-Cookie $set_home always;
    }
  }
}
`, s.dir, user, descriptors(), 2*descriptors(), s.port, parts, homes, known, nodes, secure), 0o600)
	return exec.Command(path, "-p", s.dir, "-e", "stderr", "-c", file), err
}

func haproxy(path string, s site) (*exec.Cmd, error) {
	var servers, secure string
	if s.tls {
		secure = " ssl crt " + certFile(s.dir) // which has the key too
	}
	for i, addr := range s.backends {
		servers += fmt.Sprintf("  server node%d %s check inter 1s cookie node%[1]d\n", i, addr)
	}
	file := filepath.Join(s.dir, "haproxy.cfg")
	err := os.WriteFile(file, fmt.Appendf(nil, `global
  nbthread 1
  maxconn %d
defaults
  mode http
  option forwardfor
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
frontend gateway
  bind 127.0.0.1:%d%s backlog 4096
  default_backend nodes
backend nodes
  balance roundrobin
  cookie home insert indirect nocache
  option httpchk GET /health
%s`, (descriptors()-100)/2, s.port, secure, servers), 0o600)
	return exec.Command(path, "-db", "-f", file), err
}

func caddy(path string, s site) (*exec.Cmd, error) {
	scheme, secure := "http", ""
	if s.tls {
		scheme, secure = "https", fmt.Sprintf("\ttls %s %s\n", certFile(s.dir), keyFile(s.dir))
	}
	file := filepath.Join(s.dir, "Caddyfile")
	err := os.WriteFile(file, fmt.Appendf(nil, `{
	admin off
	auto_https off
	log {
		level ERROR
	}
}
%s://:%d {
	bind 127.0.0.1
%s	reverse_proxy %s {
		lb_policy cookie home not-a-secret
		health_uri /health
		health_interval 1s
	}
}
`, scheme, s.port, secure, strings.Join(s.backends, " ")), 0o600)
	cmd := exec.Command(path, "run", "--adapter", "caddyfile", "--config", file)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "HOME="+s.dir, "XDG_DATA_HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir)
	return cmd, err
}
