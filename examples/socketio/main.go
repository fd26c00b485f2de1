// The socketio example is the classic chat over several Socket.IO nodes, with
// Limpet in front of them.
//
//	go run ./examples/socketio
//
// It needs node, npm and redis-server. Open the page in two browsers, write from
// one node to the other, then kill the node that you are on (its process ID is in
// the log) and see where you are. The gateway is in gateway.go, the nodes are
// started in nodes.go; server.js is a Socket.IO server like any other.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "`address` of the gateway and its page")
	redis := flag.String("redis", "", "`URL` of the Redis that joins the nodes (default: one of its own)")
	n := flag.Int("nodes", 3, "number of Socket.IO nodes")
	dir := flag.String("dir", "examples/socketio", "`folder` that holds server.js")
	flag.Parse()
	if flag.NArg() > 0 || *n < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *redis, *dir, *n); err != nil {
		fmt.Fprintln(os.Stderr, "socketio:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, or until something else ends it.
func run(ctx context.Context, listen, redis, dir string, n int) error {
	if err := ready(ctx, dir, redis == ""); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is taken by another program; choose another address with -listen", listen)
	}
	if err != nil {
		return err
	}
	defer ln.Close()

	// The processes end with ctx, and their end is waited for.
	ctx, stop := context.WithCancel(ctx)
	var processes sync.WaitGroup
	defer processes.Wait()
	defer stop()
	redisEnded := make(chan error, 1)
	if redis == "" {
		port, err := freePort()
		if err != nil {
			return err
		}
		redis = fmt.Sprintf("redis://127.0.0.1:%d", port)
		processes.Go(func() { redisEnded <- runRedis(ctx, port) })
	}
	nodes, err := newNodes(n, dir, redis)
	if err != nil {
		return err
	}
	for _, node := range nodes {
		processes.Go(func() { node.run(ctx) })
	}
	served := make(chan error, 1)
	processes.Go(func() { served <- serve(ctx, ln, nodes) })
	select {
	case err = <-served:
	case err = <-redisEnded:
	}
	return err
}
