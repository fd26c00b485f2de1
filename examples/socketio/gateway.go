package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// serve is Limpet in front of the nodes: a pool of them, its health checks and a
// gateway. It returns when ctx has ended and the clients had a moment to leave.
func serve(ctx context.Context, ln net.Listener, nodes []*node) error {
	pool, err := balancer.NewPool(&balancer.Options{
		Check:     &balancer.Check{Path: "/health"},
		StartDown: true, // the nodes are starting, too
	})
	if err != nil {
		return err
	}
	for _, node := range nodes {
		b, err := balancer.NewBackend(node.name, node.url(), 1)
		if err != nil {
			return err
		}
		if err := pool.Add(b); err != nil {
			return err
		}
	}
	gateway, err := limpet.NewGateway(pool, nil) // each client has its node in a cookie
	if err != nil {
		return err
	}
	server := &http.Server{Handler: gateway, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	var once sync.Once
	pool.OnChange(func(c balancer.Change) {
		if c.To == balancer.Up {
			once.Do(func() { fmt.Printf("\n  Open http://%s/\n\n", ln.Addr()) })
		}
	})
	go pool.Run(ctx)

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	leaving, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	gateway.Shutdown(leaving) // the tunnels
	server.Close()            // and everything else, long polls too
	return nil
}
