// The nginx-ip-hash example balances by the client's address, behind load
// balancers whose X-Forwarded-For is believed. It replaces
//
//	set_real_ip_from 10.0.0.0/8;
//	real_ip_header X-Forwarded-For;
//	real_ip_recursive on;
//	upstream nodes {
//	    ip_hash;
//	    server 127.0.0.1:3001;
//	    server 127.0.0.1:3002;
//	}
//
// What ip_hash gets wrong, this gets wrong as well: the clients behind one NAT, a
// whole company or mobile network, share an address and crowd one server while
// others idle, and so do all clients of one /24. A client that changes its network
// loses its server. And a hash moves clients when a server comes or goes. Where
// clients are browsers, take affinity.Cookie; a Chain of it and this hash serves
// those too who keep no cookies.
package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"net/netip"
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
	pool := balancer.Static("a=http://127.0.0.1:3001", "b=http://127.0.0.1:3002")
	if err := serve(ctx, ln, pool, netip.MustParsePrefix("10.0.0.0/8")); err != nil {
		log.Fatal(err)
	}
}

// serve runs the gateway until ctx ends, and then for as long as its clients need to leave, 5 s at most.
func serve(ctx context.Context, ln net.Listener, pool *balancer.Pool, trusted ...netip.Prefix) error {
	gateway, err := limpet.NewGateway(pool, &limpet.Options{
		Affinity: &affinity.Hash{Key: &affinity.ClientAddr{V4: 24, V6: 128}}, // as in ip_hash
		ClientIP: limpet.ClientIP{Trusted: trusted},
	})
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: gateway, ReadHeaderTimeout: 10 * time.Second}
	return gateway.Serve(ctx, srv, ln, 5*time.Second)
}
