package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// work keeps a worker running until ctx ends: one that ends is back after a second.
func work(ctx context.Context, id, script, socket string) {
	for ctx.Err() == nil {
		os.Remove(socket) // a killed worker has left it behind
		cmd := exec.CommandContext(ctx, "node", script)
		cmd.Env = append(os.Environ(), "WORKER="+id, "PORT="+socket)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 5 * time.Second // then it's killed
		master, err := cmd.StdinPipe()  // closed when we end, however that happens
		if err == nil {
			err = cmd.Run()
			master.Close()
		}
		if ctx.Err() == nil {
			slog.Warn("worker ended, starts again in 1 s", "worker", id, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}
