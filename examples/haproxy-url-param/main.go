// The haproxy-url-param example balances by a parameter of the URL. It replaces
//
//	backend nodes
//	    balance url_param userId
//	    hash-type consistent
//	    server a 127.0.0.1:3001 check
//	    server b 127.0.0.1:3002 check
//
// All connections of one user meet on one server, from whatever device, and all
// replicas of the gateway agree on it without a word. A request without the
// parameter goes to the next server in turn, as it does there.
//
// The client chooses the parameter, so it may crowd a server. And a hash moves
// users when a server comes or goes; affinity.Table of the same key moves only
// those of a server that goes.
package main

import (
	"context"
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
	ln, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, ln, balancer.Static("a=http://127.0.0.1:3001", "b=http://127.0.0.1:3002")); err != nil {
		log.Fatal(err)
	}
}

// serve runs the gateway until ctx ends, and then for as long as its clients need to leave, 5 s at most.
func serve(ctx context.Context, ln net.Listener, pool *balancer.Pool) error {
	gateway, err := limpet.NewGateway(pool, &limpet.Options{
		Affinity: &affinity.Hash{Key: affinity.Query("userId")},
	})
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: gateway, ReadHeaderTimeout: 10 * time.Second}
	return gateway.Serve(ctx, srv, ln, 5*time.Second)
}
