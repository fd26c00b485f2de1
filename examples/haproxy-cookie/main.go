// The haproxy-cookie example balances by a cookie of its own (-mode insert), or
// by the application's, the io of Engine.IO 3 (-mode prefix). It replaces
//
//	backend nodes
//	    cookie SERVERID insert indirect nocache httponly maxidle 30m maxlife 8h
//	    # or: cookie io prefix nocache
//	    option httpchk HEAD /health
//	    http-check expect status 200
//	    server a 127.0.0.1:3001 check inter 1s rise 2 fall 3 cookie a
//	    server b 127.0.0.1:3002 check inter 1s rise 2 fall 3 cookie b
//
// with three differences: the SERVERID can't be read or made up by a client, a
// server that answers the check with another status takes no new clients but
// keeps those it has, and nocache leaves alone an answer with a Cache-Control of
// its own. Over TLS, the SERVERID is called __Host-SERVERID.
package main

import (
	"context"
	"errors"
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

func main() {
	mode := flag.String("mode", "insert", "insert or prefix")
	flag.Parse()
	opts, err := options(*mode)
	if err != nil {
		log.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, ln, opts, "a=http://127.0.0.1:3001", "b=http://127.0.0.1:3002"); err != nil {
		log.Fatal(err)
	}
}

// options returns what the two cookie lines say.
func options(mode string) (*limpet.Options, error) {
	switch mode {
	case "insert": // several replicas, and one that restarts, need Secrets
		serverID := http.Cookie{Name: "SERVERID"}
		return &limpet.Options{Affinity: &affinity.Cookie{Cookie: serverID, Idle: 30 * time.Minute, Age: 8 * time.Hour}}, nil
	case "prefix":
		return &limpet.Options{
			Affinity: &affinity.AppCookie{Name: "io", Prefix: true},
			ModifyResponse: func(res *http.Response) error { // nocache: the application's own word stands
				if res.Header.Get("Set-Cookie") != "" && res.Header.Get("Cache-Control") == "" {
					res.Header.Set("Cache-Control", "private")
				}
				return nil
			},
		}, nil
	}
	return nil, errors.New("-mode is insert or prefix")
}

// serve runs the gateway until ctx ends, and then for as long as its clients need to leave, 5 s at most.
func serve(ctx context.Context, ln net.Listener, opts *limpet.Options, specs ...string) error {
	var backends []*balancer.Backend
	for _, spec := range specs {
		b, err := balancer.ParseBackend(spec)
		if err != nil {
			return err
		}
		backends = append(backends, b)
	}
	pool, err := balancer.NewPool(&balancer.Options{Check: &balancer.Check{
		Path: "/health", Expect: []int{http.StatusOK}, Interval: time.Second, Rise: 2, Fall: 3,
	}}, backends...)
	if err != nil {
		return err
	}
	gateway, err := limpet.NewGateway(pool, opts)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: gateway, ReadHeaderTimeout: 10 * time.Second}
	return gateway.Serve(ctx, srv, ln, 5*time.Second)
}
