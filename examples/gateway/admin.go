package main

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/middleware/metrics"
	"github.com/limpet-go/limpet/middleware/status"
)

// admin says where operators and their tools are served, and who may steer. It is a
// listener of its own, so that no path is taken from the backends, and a firewall can keep
// clients away from it.
//
// A socket's permissions say who may open it, and so who may steer. On a port nobody may
// steer without a secret, not even on loopback: every process of the machine reaches that,
// and so does everybody who can make one of them fetch a URL.
type admin struct {
	addr      string // HOST:PORT or unix:/path; "" for none
	tokenFile string
	token     string // "" without a file
}

// parse checks the flags and reads the file. Its errors never hold the token.
func (a *admin) parse() error {
	if a.tokenFile != "" {
		text, err := os.ReadFile(a.tokenFile)
		if err != nil {
			return fmt.Errorf("-admin-token-file: %w", err)
		}
		if a.token = strings.TrimSpace(string(text)); len(a.token) < 16 {
			return errors.New("-admin-token-file: want at least 16 characters: make them with openssl rand -hex 32")
		}
		if a.addr == "" {
			return errors.New("-admin-token-file is for -admin, which is missing")
		}
	}
	if a.addr == "" || a.socket() != "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(a.addr); err != nil || a.addr == "unix:" {
		return fmt.Errorf("-admin %q: want HOST:PORT or unix:/path", a.addr)
	}
	return nil
}

// socket returns the path of a Unix socket, "" if addr is none.
func (a *admin) socket() string {
	path, ok := strings.CutPrefix(a.addr, "unix:")
	if !ok {
		return ""
	}
	return path
}

// guard asks for the token, if there is one, before it shows anything: a browser asks its
// user only when it is refused the page itself. Scripts send it as a bearer token,
// browsers as the password of Basic authentication, with the user's name for the log.
func (a *admin) guard(next http.Handler) http.Handler {
	if a.token == "" {
		return next
	}
	// Comparing sums takes the same time whatever the length of what was given.
	want := sha256.Sum256([]byte(a.token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			_, token, _ = r.BasicAuth()
		}
		if got := sha256.Sum256([]byte(token)); subtle.ConstantTimeCompare(got[:], want[:]) == 0 {
			w.Header().Set("WWW-Authenticate", `Basic realm="limpet", charset="UTF-8"`)
			http.Error(w, "the token of -admin-token-file is needed: as a bearer token, or as the password with your name as the user", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// nobodysName reports whether host is an address, or a name without a dot such as
// localhost. Browsers don't reach a socket, unless ssh -L forwards a port to it. Then a page
// of somebody else's could, whose own name was made to point to that port (DNS rebinding).
func nobodysName(host string) bool {
	name := (&url.URL{Host: host}).Hostname()
	_, err := netip.ParseAddr(name)
	return err == nil || !strings.Contains(name, ".")
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
		slog.Warn("the admin address isn't loopback: see to it that only operators reach it, as it shows backends and metrics, and a token passes unencrypted", "addr", addr.String())
	}
	return l, nil
}

// listenPrivate opens a Unix socket that only this process' user, and root, can connect
// to. It is made in a folder that nobody else can enter, until it has its permissions, and
// then replaces the socket that an earlier process may have left at path. Anything else
// that is there stays.
func listenPrivate(path string) (net.Listener, error) {
	if there, err := os.Lstat(path); err == nil && there.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s is there already, and is no socket", path)
	}
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

// listenAdmin opens the port or the socket for operators, nil if there is no -admin.
func (cfg *config) listenAdmin() (net.Listener, error) {
	if cfg.admin.addr == "" {
		return nil, nil
	}
	l, err := cfg.listenBy("admin", cfg.admin.addr, cfg.admin.listen)
	if err != nil {
		return nil, fmt.Errorf("-admin: %w", err)
	}
	return l, nil
}

// serveAdmin serves operators on l, unless that is nil, until stop is called. It accepts nobody
// any more once a successor does.
func (cfg *config) serveAdmin(l net.Listener) (stop func()) {
	if l == nil {
		return func() {}
	}
	handler, observed := cfg.adminHandler()
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			slog.Error("operators aren't served any more", "err", err)
		}
	}()
	addr := cfg.admin.socket() // l has a name that is gone
	if addr == "" {
		addr = l.Addr().String()
	}
	slog.Info("serving operators", "addr", addr)
	ended := make(chan struct{})
	go func() {
		select {
		case <-ended:
		case <-cfg.gone():
			l.Close()
			server.SetKeepAlivesEnabled(false)
		}
	}()
	return func() {
		close(ended)
		observed.Close()
		server.Close()
	}
}

// adminHandler returns what operators are served, and the status page in it, to be closed.
// It is made before the gateway serves, so that nothing escapes the counts. Probes and
// Prometheus bring no token.
func (cfg *config) adminHandler() (http.Handler, *status.Handler) {
	show := &status.Options{Parts: make(map[string]func() (string, error))}
	count := &metrics.Options{Store: cfg.store, Limit: cfg.door.limit, Origin: cfg.door.origin}
	switch {
	case cfg.admin.token != "":
		show.Authorize = func(*http.Request) bool { return true } // guard has asked
	case cfg.admin.socket() != "":
		show.Authorize = func(r *http.Request) bool { return nobodysName(r.Host) }
		show.Who = func(r *http.Request) string { // curl -u NAME: says more
			user, _, _ := r.BasicAuth()
			return cmp.Or(user, "socket")
		}
	}
	if cfg.store != nil {
		show.Parts["store"] = func() (string, error) {
			s := cfg.store.Stats()
			if s.Open {
				return "", errors.New("no answer from Redis; pins come from this replica's memory")
			}
			return fmt.Sprintf("%d calls, %d of them failed", s.Calls, s.Errors), nil
		}
	}
	if b, ok := cfg.options.Bus.(*bus.Redis); ok {
		count.Bus = b
		show.Parts["bus"] = func() (string, error) {
			s := b.Stats()
			if s.Away > 0 {
				return "", errors.New("no connection to Redis; the other replicas aren't heard")
			}
			return fmt.Sprintf("%d messages sent, %d received", s.Published, s.Delivered), nil
		}
	}
	page := status.New(cfg.gateway, show)
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", cfg.gateway.Livez)
	mux.HandleFunc("/readyz", cfg.gateway.Readyz)
	mux.Handle("/metrics", metrics.Handler(cfg.gateway, count))
	mux.Handle("/", cfg.admin.guard(page))
	return mux, page
}
