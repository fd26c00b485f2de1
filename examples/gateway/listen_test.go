//go:build unix

package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/process"
)

// activate starts the gateway with sockets as systemd passes them: from file number 3 on,
// and for a process whose number isn't known before it is there.
func activate(t *testing.T, sockets []*os.File, args ...string) *process.Process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, exe}, args...)...)
	cmd.ExtraFiles = sockets
	count := strings.Repeat("1", len(sockets)) // "1" or "11", of which the latter is too many in any case
	cmd.Env = append(os.Environ(), "LIMPET_TEST_GATEWAY=1", "LIMPET_KEYS=", "LISTEN_FDS="+count)
	return process.Start(t, cmd)
}

// A socket that systemd holds stays open when the gateway is restarted: a client that comes
// between waits, and isn't refused.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	b := exampletest.StartBackend(t, "a", nil)
	url := "http://" + l.Addr().String()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

	p := activate(t, []*os.File{socket}, "-backend", b.Spec(), "-drain", "1s")
	if got := address(t, p); got != l.Addr().String() {
		t.Errorf("listens on %s", got)
	}
	if code, text := ask(t, client, url); code != 200 {
		t.Errorf("%d %q", code, text)
	}
	p.Signal(t, syscall.SIGTERM)
	if code := p.End(t); code != 0 {
		t.Errorf("exit code %d", code)
	}

	between := make(chan int, 1)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
		res, err := client.Get(url)
		if err != nil {
			t.Error(err)
			between <- 0
			return
		}
		res.Body.Close()
		between <- res.StatusCode
	}()
	activate(t, []*os.File{socket}, "-backend", b.Spec())
	if code := <-between; code != 200 {
		t.Errorf("a client that came between: %d", code)
	}
}

func TestTooManySockets(t *testing.T) {
	t.Parallel()
	p := activate(t, []*os.File{os.Stderr, os.Stderr}, "-backend", "a=http://127.0.0.1:1")
	p.AwaitLine(t, "LISTEN_FDS=11: want one socket")
	if code := p.End(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
}

// What isn't a socket is an error, and what is another process' is left alone.
func TestWrongSocket(t *testing.T) {
	t.Parallel()
	p := activate(t, []*os.File{os.Stderr}, "-backend", "a=http://127.0.0.1:1")
	p.AwaitLine(t, "LISTEN_FDS: ")
	if code := p.End(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	address(t, gateway(t, []string{"LISTEN_PID=1", "LISTEN_FDS=1"}, "-listen", "127.0.0.1:0", "-backend", "a=http://127.0.0.1:1"))
}
