// The nginx-cookie-map example balances by a cookie that names a server in the
// clear, which a script in the page or the gateway itself sets. It replaces
//
//	map $cookie_server $backend {
//	    1        10.0.0.1:3000;
//	    2        10.0.0.2:3000;
//	    default  10.0.0.1:3000;
//	}
//	location / {
//	    proxy_pass http://$backend;  # and what it takes to upgrade
//	}
//
// and unlike that, clients of a server that is down go to the others, and new
// ones don't crowd the default. As there, each client chooses for itself where
// it goes; where that matters, see the haproxy-cookie example.
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

	"github.com/go-chi/chi/v5"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	if err := serve(ctx, ln, balancer.Static("a=http://127.0.0.1:3001", "b=http://127.0.0.1:3002")); err != nil {
		log.Fatal(err)
	}
}

// serve runs the gateway until ctx ends, and then for as long as its clients need to leave, 5 s at most.
func serve(ctx context.Context, ln net.Listener, pool *balancer.Pool) error {
	servers := map[string]string{"1": "a", "2": "b"} // from the cookie's value to the backend
	gateway, err := limpet.NewGateway(pool, &limpet.Options{
		Affinity: &affinity.CookieMap{Name: "server", Backends: servers},
	})
	if err != nil {
		return err
	}
	assign := &limpet.AssignCookie{Cookie: http.Cookie{Name: "server"}, Backends: servers, Pool: pool}
	r := chi.NewRouter()
	r.Handle("/server.js", assign.Script()) // for a page that connects before it has asked for anything here
	r.Handle("/*", assign.Handler(gateway)) // for all others

	srv := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	return gateway.Serve(ctx, srv, ln, 5*time.Second)
}
