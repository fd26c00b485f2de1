package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// admin says where operators and their tools are served. It is a listener of its own, so
// that no path is taken from the backends, and a firewall can keep clients away from it.
type admin struct {
	addr string // HOST:PORT or unix:/path; "" for none
}

// parse checks the flags.
func (a *admin) parse() error {
	if a.addr == "" || a.socket() != "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(a.addr); err != nil {
		return fmt.Errorf("-admin %q: want HOST:PORT or unix:/path", a.addr)
	}
	return nil
}

// socket returns the path of a Unix socket, "" if addr is none.
func (a *admin) socket() string {
	path, _ := strings.CutPrefix(a.addr, "unix:")
	if path == a.addr {
		return ""
	}
	return path
}

// listen opens the port or the socket.
func (a *admin) listen() (net.Listener, error) {
	if path := a.socket(); path != "" {
		return listenPrivate(path)
	}
	l, err := net.Listen("tcp", a.addr)
	if err != nil {
		return nil, err
	}
	if addr, ok := l.Addr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
		slog.Warn("the admin address isn't loopback: see to it that only operators reach it", "addr", addr.String())
	}
	return l, nil
}

// listenPrivate opens a Unix socket that only this process' user, and root, can connect
// to. It is made in a folder that nobody else can enter, until it has its permissions, and
// then replaces what an earlier process may have left at path.
func listenPrivate(path string) (net.Listener, error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".limpet-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	hidden := filepath.Join(dir, "s")
	l, err := net.Listen("unix", hidden)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // its name will be another one
	if err = os.Chmod(hidden, 0o600); err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// serveAdmin serves operators, if -admin is given, until stop is called.
func (cfg *config) serveAdmin() (stop func(), err error) {
	if cfg.admin.addr == "" {
		return func() {}, nil
	}
	l, err := cfg.admin.listen()
	if err != nil {
		return nil, fmt.Errorf("-admin: %w", err)
	}
	server := &http.Server{Handler: cfg.adminHandler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("operators aren't served any more", "err", err)
		}
	}()
	addr := cfg.admin.socket() // l has a name that is gone
	if addr == "" {
		addr = l.Addr().String()
	}
	slog.Info("serving operators", "addr", addr)
	return func() { server.Close() }, nil
}

// adminHandler is what operators are served.
func (cfg *config) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", cfg.gateway.Livez)
	mux.HandleFunc("/readyz", cfg.gateway.Readyz)
	return mux
}
