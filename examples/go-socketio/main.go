// The go-socketio example has Socket.IO nodes written in Go, with
// github.com/googollee/go-socket.io (Socket.IO 2, Engine.IO 3), and Limpet in front
// of them: to the gateway they are nodes like any other. It is a module of its own,
// so that nobody else needs that server:
//
//	cd examples/go-socketio && go run .
//
// The nodes are in node.go. Here they share a process; each of them knows its own
// sessions only, as if it were on a machine of its own. go-socket.io 1.7.0 refuses
// some requests of clients that upgrade to WebSocket, with a gateway or without;
// they connect again.
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
	"syscall"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "`address` of the gateway")
	n := flag.Int("nodes", 3, "`number` of nodes")
	flag.Parse()
	if *n < 1 {
		log.Fatal("-nodes must be at least 1")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *n); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends, and then for as long as the clients need to leave, 5 s at most.
func run(ctx context.Context, listen string, n int) error {
	var nodes []*balancer.Backend
	for i := range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		name := fmt.Sprint("node", i+1)
		go http.Serve(ln, node(name)) // ends with the process
		b, err := balancer.NewBackend(name, "http://"+ln.Addr().String(), 1)
		if err != nil {
			return err
		}
		nodes = append(nodes, b)
	}
	pool, err := balancer.NewPool(nil, nodes...)
	if err != nil {
		return err
	}
	// By the session's own ID: clients without cookies are at home, too.
	gateway, err := limpet.NewGateway(pool, &limpet.Options{Affinity: &affinity.EngineIO{Mode: affinity.SIDModeLearn}})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	log.Printf("listening at http://%s", ln.Addr())
	srv := &http.Server{Handler: gateway, ReadHeaderTimeout: 10 * time.Second}
	return gateway.Serve(ctx, srv, ln, 5*time.Second)
}
