// The nginx-sticky example has the three ways of nginx' sticky directive by -mode.
// It replaces one of
//
//	upstream nodes {
//	    server 127.0.0.1:3001 route=a;
//	    server 127.0.0.1:3002 route=b;
//	    sticky cookie srv_id expires=1h domain=.example.com path=/ httponly;
//	    # or, with the two maps that cut a route off JSESSIONID=0815.a and ;jsessionid=0815.a
//	    sticky route $route_cookie $route_uri;
//	    # or
//	    sticky learn create=$upstream_cookie_examplecookie lookup=$cookie_examplecookie
//	        zone=client_sessions:1m;
//	}
//
// with one difference: srv_id can't be read or made up by a client.
package main

import (
	"context"
	"flag"
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

// way returns one of the three ways, nil if mode is none of them.
func way(mode string) affinity.Affinity {
	switch mode {
	case "cookie": // several replicas, and one that restarts, need Secrets
		return &affinity.Cookie{
			Cookie: http.Cookie{Name: "srv_id", Domain: ".example.com", Path: "/", MaxAge: 3600},
			Idle:   time.Hour, // nginx sends the cookie with each answer: the hour counts from the last one
		}
	case "route": // with Backends, if the routes aren't their IDs
		return &affinity.Route{Cookie: "JSESSIONID", Param: "jsessionid"}
	case "learn": // 1m is 4,000 sessions, and 10 minutes are the default; replicas share an affinity.Redis
		return &affinity.AppCookie{Name: "examplecookie", Store: &affinity.LRU{Size: 4000, Idle: 10 * time.Minute}}
	}
	return nil
}

func main() {
	mode := flag.String("mode", "cookie", "cookie, route or learn")
	flag.Parse()
	sticky := way(*mode)
	if sticky == nil {
		log.Fatal("-mode is cookie, route or learn")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, ln, sticky, balancer.Static("a=http://127.0.0.1:3001", "b=http://127.0.0.1:3002")); err != nil {
		log.Fatal(err)
	}
}

// serve runs the gateway until ctx ends, and then for as long as its clients need to leave, 5 s at most.
func serve(ctx context.Context, ln net.Listener, sticky affinity.Affinity, pool *balancer.Pool) error {
	gateway, err := limpet.NewGateway(pool, &limpet.Options{Affinity: sticky})
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: gateway, ReadHeaderTimeout: 10 * time.Second}
	return gateway.Serve(ctx, srv, ln, 5*time.Second)
}
