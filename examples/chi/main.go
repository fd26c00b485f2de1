// The chi example is a service of the usual kind (files, a JSON API, chi's middleware around them) that hands one group
// of its routes to Limpet.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

//go:embed static
var files embed.FS

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	if err := serve(ctx, ln, balancer.Static("a=http://127.0.0.1:9001", "b=http://127.0.0.1:9002")); err != nil {
		log.Fatal(err)
	}
}

// serve runs the service until ctx ends, and then for as long as its clients need to leave, 5 s at most.
func serve(ctx context.Context, ln net.Listener, pool *balancer.Pool) error {
	gateway, err := limpet.NewGateway(pool, &limpet.Options{
		// chi's request ID goes on to the backend, so that the two logs can be laid side by side.
		Rewrite: func(in, out *http.Request) {
			out.Header.Set(middleware.RequestIDHeader, middleware.GetReqID(in.Context()))
		},
	})
	if err != nil {
		return err
	}
	r := chi.NewRouter()
	r.Use(middleware.RequestID, middleware.Logger, middleware.Recoverer)
	r.Route("/api", func(r chi.Router) {
		r.Use(middleware.Timeout(5 * time.Second)) // here, not above: it would cut long polls
		r.Get("/backends", backends(pool))
	})
	r.Route("/live", func(r chi.Router) {
		// Middleware of this group alone, who may come in for example, goes here.
		r.Handle("/*", gateway)
	})
	static, _ := fs.Sub(files, "static") // fails on malformed names only
	r.Handle("/*", http.FileServerFS(static))

	srv := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	return gateway.Serve(ctx, srv, ln, 5*time.Second)
}

// backends answers with the state of each backend.
func backends(pool *balancer.Pool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		states := map[string]string{}
		for b := range pool.All() {
			states[b.ID()] = b.State().String()
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(states)
	}
}
