package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// node is one Socket.IO server process.
type node struct {
	name  string
	port  int
	dir   string
	redis string
}

func newNodes(n int, dir, redis string) ([]*node, error) {
	nodes := make([]*node, n)
	for i := range nodes {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		nodes[i] = &node{name: fmt.Sprint("node", i+1), port: port, dir: dir, redis: redis}
	}
	return nodes, nil
}

func (n *node) url() string { return fmt.Sprintf("http://127.0.0.1:%d", n.port) }

// run keeps the node running until ctx ends: killed, it is back after a moment.
func (n *node) run(ctx context.Context) {
	for ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, "node", "server.js", "--with-parent")
		cmd.Dir = n.dir
		cmd.Env = append(os.Environ(), "NAME="+n.name, "PORT="+strconv.Itoa(n.port), "REDIS="+n.redis)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		parent, err := cmd.StdinPipe() // the node ends when this is closed, by us or by our own end
		if err == nil {
			err = cmd.Run()
			parent.Close()
		}
		if ctx.Err() == nil {
			slog.Warn("node ended, starts again in 3 s", "node", n.name, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(3 * time.Second):
		}
	}
}

// runRedis runs a Redis that remembers nothing, until ctx ends.
func runRedis(ctx context.Context, port int) error {
	cmd := exec.CommandContext(ctx, "redis-server", "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "")
	cmd.Stdout, cmd.Stderr = io.Discard, os.Stderr
	if err := cmd.Run(); ctx.Err() == nil {
		return fmt.Errorf("redis-server ended: %w", err)
	}
	return nil
}

// ready finds out whether everything is there that the nodes need, and installs
// their npm packages the first time.
func ready(ctx context.Context, dir string, ownRedis bool) error {
	if _, err := os.Stat(filepath.Join(dir, "server.js")); err != nil {
		return fmt.Errorf("no server.js in %s: run this from the root of the repository, or say -dir", dir)
	}
	programs := []string{"node", "npm"}
	if ownRedis {
		programs = append(programs, "redis-server")
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("needs %s, which isn't installed (or not in PATH)", program)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	slog.Info("installing npm packages, for the first time", "dir", dir)
	npm := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci in %s: %w\n%s", dir, err, out)
	}
	return nil
}

// freePort returns a port that was free a moment ago.
func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}
