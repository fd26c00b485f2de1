// The slb-proxy-protocol example stands behind a TCP load balancer, which names
// the client of each connection by the PROXY protocol, version 1 or 2: HAProxy
// with `server gw1 10.0.0.5:8080 send-proxy-v2`, or a cloud's with a switch for
// it. It replaces
//
//	server {
//	    listen 8080 proxy_protocol;
//	    set_real_ip_from 10.0.0.0/24;
//	    real_ip_header   proxy_protocol;
//	    location / {
//	        proxy_pass http://nodes;  # and what it takes to upgrade
//	        proxy_set_header X-Real-IP       $remote_addr;
//	        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
//	    }
//	}
//
// and unlike that, who comes past the balancers is served as the client that he
// is, and can't name another: neither by the PROXY protocol, which is no HTTP and
// gets 400, nor by fields, which are dropped whoever sent them. A balancer that
// sends no header is cut off: its own address would stand for all clients.
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

	"github.com/pires/go-proxyproto"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", ":8080")
	if err != nil {
		log.Fatal(err)
	}
	if err := serve(ctx, ln, balancer.Static("a=http://10.0.1.1:3000", "b=http://10.0.1.2:3000"), "10.0.0.0/24"); err != nil {
		log.Fatal(err)
	}
}

// serve runs the gateway until ctx ends, and then for as long as its clients need to leave, 5 s at most.
func serve(ctx context.Context, ln net.Listener, pool *balancer.Pool, balancers ...string) error {
	policy, err := proxyproto.PolicyFromRanges(balancers, proxyproto.REQUIRE, proxyproto.SKIP)
	if err != nil {
		return err
	}
	gateway, err := limpet.NewGateway(pool, &limpet.Options{
		Affinity: &affinity.Hash{Key: &affinity.ClientAddr{}}, // ip_hash, of the true address
	})
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: gateway, ReadHeaderTimeout: 10 * time.Second}
	return gateway.Serve(ctx, srv, &proxyproto.Listener{Listener: ln, ConnPolicy: policy}, 5*time.Second)
}
