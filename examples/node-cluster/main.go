// The node-cluster example is what Node's cluster module, with sticky-session or
// @socket.io/sticky, or PM2 was used for: a master that starts as many Node workers
// as the machine has processors, starts those again that end, and brings each
// client to its own. The workers need nothing for it but to listen at PORT, which
// is a Unix socket, and to answer /health.
//
//	go run ./examples/node-cluster
//
// At SIGTERM, clients get 5 s to leave, then the workers get a SIGTERM.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "`address` to listen at")
	script := flag.String("script", "examples/node-cluster/server.js", "the workers' `program`")
	n := flag.Int("workers", runtime.NumCPU(), "their `number`")
	flag.Parse()
	if *n < 1 {
		log.Fatal("-workers must be at least 1")
	}
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, ln, *script, *n); err != nil {
		log.Fatal(err)
	}
}

// serve runs workers and gateway until ctx ends, and then for as long as its clients need to leave, 5 s at most.
func serve(ctx context.Context, ln net.Listener, script string, n int) error {
	dir, err := os.MkdirTemp("", "node-cluster-") // nobody else may enter
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	pool, err := balancer.NewPool(&balancer.Options{
		Check:     &balancer.Check{Path: "/health"},
		StartDown: true, // the workers are starting, too
	})
	if err != nil {
		return err
	}
	gateway, err := limpet.NewGateway(pool, nil) // each client has its worker in a cookie
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx)) // also while clients leave
	var workers sync.WaitGroup
	defer workers.Wait()
	defer stop()
	for i := range n {
		id := fmt.Sprint("worker", i+1)
		socket := filepath.Join(dir, id)
		b, err := balancer.NewBackend(id, "unix://"+socket, 1)
		if err == nil {
			err = pool.Add(b)
		}
		if err != nil {
			return err
		}
		workers.Go(func() { work(running, id, script, socket) })
	}
	log.Printf("at http://%s/, with %d workers", ln.Addr(), n)

	srv := &http.Server{Handler: gateway, ReadHeaderTimeout: 10 * time.Second}
	return gateway.Serve(ctx, srv, ln, 5*time.Second)
}
