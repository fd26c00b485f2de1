package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	limpet "github.com/limpet-go/limpet/middleware"
)

// With -takeover a gateway takes the place of the one that runs: starting it is the whole
// upgrade. On SIGHUP a gateway starts its successor itself, with its own arguments, so that
// systemctl reload is one, too.

// listenBy returns the predecessor's listener, if there is a predecessor and it has one of this
// name, or what open returns.
func (cfg *config) listenBy(network, addr string, open func() (net.Listener, error)) (net.Listener, error) {
	if h := cfg.options.Handover; h != nil {
		return h.ListenBy(network, addr, open)
	}
	return open()
}

// gone returns a channel that is closed when a successor has everything, nil without -takeover.
func (cfg *config) gone() <-chan struct{} {
	if h := cfg.options.Handover; h != nil {
		return h.Gone()
	}
	return nil
}

// succeed starts a successor at each SIGHUP, until stop is called.
func succeed(h *limpet.Handover) (stop func()) {
	if h == nil {
		return func() {}
	}
	path, unknown := exec.LookPath(os.Args[0])
	if unknown == nil {
		path, unknown = filepath.Abs(path) // whatever is there later, also where a symbolic link leads then
	}
	asked, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(asked, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-asked:
			}
			err := unknown
			if err == nil {
				err = start(path) // the program may be missing while it is replaced, and be there the next time
			}
			if err != nil {
				slog.Error("no successor could be started", "err", err)
			}
		}
	}()
	return func() {
		signal.Stop(asked)
		close(done)
	}
}

// start starts a process with the arguments of this one. It isn't waited for: if it doesn't
// become the successor it says why, and this one goes on.
func start(path string) error {
	cmd := exec.Command(path, os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LISTEN_") { // those sockets come from this process
			cmd.Env = append(cmd.Env, v)
		}
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	slog.Info("a successor starts", "pid", cmd.Process.Pid)
	go func() {
		if err := cmd.Wait(); err != nil {
			slog.Error("the successor has ended", "err", err)
		}
	}()
	return nil
}

// ready tells the service manager, if there is one, that this process serves, and that it is
// the one to watch from now on: see sd_notify(3).
func ready() {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.Dial("unixgram", path) // a name that begins with @ is abstract for package net, too
	if err == nil {
		_, err = fmt.Fprintf(conn, "READY=1\nMAINPID=%d", os.Getpid())
		conn.Close()
	}
	if err != nil {
		slog.Warn("the service manager can't be told that the gateway is ready", "err", err)
	}
}
