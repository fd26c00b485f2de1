// The chat example is a chat with rooms on several Go nodes with plain
// WebSockets, and Limpet in front of them.
//
//	go run ./examples/chat
//
// Open the page in two browsers: each is on a node of its own, and they are in
// one conversation. The nodes share this process and so a bus in memory. With
// -redis they are joined to those of other machines that run the same, each with
// its own gateway:
//
//	go run ./examples/chat -redis redis://10.0.0.5:6379
//
// node.go is the chat itself. It knows nothing of gateways and little of the bus.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	limpet "github.com/limpet-go/limpet/middleware"
)

//go:embed page
var files embed.FS

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "`address` of the gateway and its page")
	n := flag.Int("nodes", 3, "number of chat nodes")
	name := flag.String("name", "node", "what the nodes are called, with a number behind it")
	url := flag.String("redis", "", "`URL` of the Redis that joins the nodes of several machines")
	streams := flag.Bool("streams", false, "use Redis Streams, which lose nothing when the connection breaks, and keep what clients miss that are away")
	flag.Parse()
	if flag.NArg() > 0 || *n < 1 || *streams && *url == "" {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *name, *n, *url, *streams); err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, listen, name string, n int, url string, streams bool) error {
	b, closeBus, err := openBus(url, streams)
	if err != nil {
		return err
	}
	defer closeBus()
	ln, err := net.Listen("tcp", listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is taken by another program; choose another address with -listen", listen)
	}
	if err != nil {
		return err
	}
	defer ln.Close()

	// The nodes end behind the gateway, which tells their clients.
	pool, err := balancer.NewPool(&balancer.Options{Check: &balancer.Check{Path: "/health"}})
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var nodes sync.WaitGroup
	defer nodes.Wait()
	defer stop()
	for i := range n {
		node, err := newNode(fmt.Sprint(name, i+1), b)
		if err != nil {
			return err
		}
		at, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		nodes.Go(func() {
			if err := node.serve(serving, at); err != nil {
				slog.Error("a node has ended", "node", node.name, "err", err)
			}
		})
		member, err := balancer.NewBackend(node.name, "http://"+at.Addr().String(), 1)
		if err != nil {
			return err
		}
		if err := pool.Add(member); err != nil {
			return err
		}
	}

	gateway, err := limpet.NewGateway(pool, nil) // each client has its node in a cookie
	if err != nil {
		return err
	}
	r := chi.NewRouter()
	r.Handle("/chat", gateway)
	r.Handle("/limpet.js", hub.Client())
	r.Handle("/*", page())
	fmt.Printf("Open http://%s/ in two browsers. Ctrl-C ends it.\n", ln.Addr())
	return gateway.Serve(ctx, &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}, ln, 2*time.Second)
}

// openBus returns the bus that the nodes of this process share.
func openBus(url string, streams bool) (bus.Bus, func() error, error) {
	if url == "" {
		return &bus.Memory{History: kept, Idle: time.Hour}, func() error { return nil }, nil
	}
	client, err := bus.NewRedisClient(url)
	if err != nil {
		return nil, nil, fmt.Errorf("-redis: %w", err)
	}
	if streams {
		return &bus.Streams{Client: client, Idle: 24 * time.Hour}, client.Close, nil
	}
	return &bus.Redis{Client: client}, client.Close, nil
}

// page serves the page. Its policy lets nothing in from elsewhere.
func page() http.Handler {
	root, _ := fs.Sub(files, "page") // fails on malformed names only
	serve := http.FileServerFS(root)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy",
			"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		serve.ServeHTTP(w, r)
	})
}
