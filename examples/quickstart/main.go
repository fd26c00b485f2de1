// The quickstart is a whole sticky service in one process: three chat backends, Limpet in front of them, and a page to
// break it with.
//
//	go run ./examples/quickstart
//
// What an operator sees of it is at /limpet/.
//
// Read main.go for how a gateway is put together, backend.go for what it stands in front of, and page/app.js and
// guest.go for what a client has to do.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
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
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/status"
)

//go:embed page
var files embed.FS

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address of the gateway and its page")
	guests := flag.Int("guests", 6, "simulated visitors, for company (at most 12)")
	verbose := flag.Bool("v", false, "log what the gateway does")
	flag.Parse()
	if flag.NArg() > 0 || *guests < 0 || *guests > len(guestNames) {
		flag.Usage()
		os.Exit(2)
	}
	if !*verbose {
		// The page tells the story.
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *guests, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, listen string, guests int, out io.Writer) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("%s is taken by another program; choose another address with -listen", listen)
		}
		return err
	}
	defer ln.Close()

	// Three backends that share a chat room over a bus. Backends on machines of their own would use bus.Redis.
	memory, history := &bus.Memory{}, &history{}
	backends := []*backend{
		{id: "coral", hue: 25, bus: memory, history: history},
		{id: "ocean", hue: 250, bus: memory, history: history},
		{id: "moss", hue: 145, bus: memory, history: history},
	}
	var members []*balancer.Backend
	for _, b := range backends {
		if err := b.start(); err != nil {
			return err
		}
		defer b.kill()
		member, err := balancer.NewBackend(b.id, "http://"+b.addr, 1)
		if err != nil {
			return err
		}
		members = append(members, member)
	}

	// The pool knows who can serve. It looks four times a second here, so that a revived backend is back at once; that a
	// backend has died is seen even sooner, by the first request that is refused.
	pool, err := balancer.NewPool(&balancer.Options{
		Check: &balancer.Check{Path: "/healthz", Interval: 250 * time.Millisecond},
	}, members...)
	if err != nil {
		return err
	}
	demo := &demo{pool: pool, backends: backends}
	defer pool.OnChange(demo.changed)()

	// The gateway brings each client home. Without options that is by an encrypted cookie, and a client whose home is
	// gone moves to another.
	gateway, err := limpet.NewGateway(pool, nil)
	if err != nil {
		return err
	}

	// What an operator sees of it. Everybody may steer here, because everybody may press the demo's buttons, too; a real
	// service asks who it is.
	operator := status.New(gateway, &status.Options{Authorize: func(*http.Request) bool { return true }})
	defer operator.Close()

	r := chi.NewRouter()
	r.Handle("/chat", gateway)
	r.Mount("/limpet", operator)
	r.Route("/demo", demo.routes)
	r.Handle("/*", page())
	srv := &http.Server{Handler: r}

	// What runs beside the server stops with it.
	var beside sync.WaitGroup
	defer beside.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	url := "http://" + ln.Addr().String()
	for _, name := range guestNames[:guests] {
		beside.Go(func() { guest(ctx, url, name) })
	}

	fmt.Fprintf(out, "Limpet is in front of three chat backends. Open %s and kill one.\n", url)
	fmt.Fprintf(out, "What the gateway knows about them is at %s/limpet/. Ctrl-C ends it.\n", url)

	// Health checks, and at the end a goodbye to each tunnel, with close code 1012, are in it.
	return gateway.Serve(ctx, srv, ln, 2*time.Second)
}

// page serves the demo's own files. Its policy lets nothing in from elsewhere.
func page() http.Handler {
	root, _ := fs.Sub(files, "page") // fails on malformed names only
	serve := http.FileServerFS(root)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy",
			"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-cache") // embedded files have no date to compare
		serve.ServeHTTP(w, r)
	})
}
