// The apache-balancer example balances by routes, as mod_proxy_balancer does: the
// application's (-stickysession "JSESSIONID|jsessionid") or its own
// (-stickysession ROUTEID). It replaces
//
//	<Proxy "balancer://nodes">
//	    BalancerMember "http://127.0.0.1:3001" route=node1
//	    BalancerMember "http://127.0.0.1:3002" route=node2
//	</Proxy>
//	ProxyPass "/" "balancer://nodes/" upgrade=websocket stickysession=JSESSIONID|jsessionid scolonpathdelim=On
//	# or
//	Header add Set-Cookie "ROUTEID=.%{BALANCER_WORKER_ROUTE}e; path=/" env=BALANCER_ROUTE_CHANGED
//	ProxyPass "/" "balancer://nodes/" upgrade=websocket stickysession=ROUTEID
//
// with the same names on the wire, so that the two can run side by side.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

func main() {
	session := flag.String("stickysession", "ROUTEID", "`name` of the cookie and the parameter; behind a |, that of the parameter")
	flag.Parse()
	ln, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, ln, *session, balancer.Static("node1=http://127.0.0.1:3001", "node2=http://127.0.0.1:3002")); err != nil {
		log.Fatal(err)
	}
}

// serve runs the gateway until ctx ends, and then for as long as its clients need to leave, 5 s at most.
func serve(ctx context.Context, ln net.Listener, session string, pool *balancer.Pool) error {
	cookie, param, ok := strings.Cut(session, "|")
	if !ok {
		param = cookie
	}
	route := &affinity.Route{Cookie: cookie, Param: param} // Backends, if the routes aren't the backends' IDs
	if session == "ROUTEID" {
		route.Set = &http.Cookie{Path: "/"} // whenever the route has changed
	}
	gateway, err := limpet.NewGateway(pool, &limpet.Options{Affinity: route})
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: gateway, ReadHeaderTimeout: 10 * time.Second}
	return gateway.Serve(ctx, srv, ln, 5*time.Second)
}
