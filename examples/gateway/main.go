// Gateway is a complete Limpet gateway, configured by flags, and the starter to
// copy: keep what you need and throw the flags away.
//
//	gateway -listen :8080 \
//	  -backend a=http://10.0.0.1:3000 -backend b=http://10.0.0.2:3000 \
//	  -health /healthz -key-file /etc/limpet.keys -trusted 10.1.0.0/16 \
//	  -admin 127.0.0.1:9090 -access-log json
//
// Several replicas need the same keys. The first key seals new cookies and all
// of them open old ones: to change keys, add the new one second everywhere, then
// move it first everywhere, then remove the old one.
//
// There is no configuration file. The list of arguments in a unit of systemd or in a
// manifest of Kubernetes is one already, which is reviewed and kept with the rest; a
// file beside it would bring a second syntax and the question which of both holds.
// What changes while the gateway runs, such as drains and weights, is done over -admin.
// Secrets are files, as other users can read a process' arguments.
//
// With -takeover PATH, starting another gateway with the same flags replaces the one that runs,
// without closing a WebSocket. SIGHUP has the gateway start that itself.
//
// gateway -doctor https://chat.example.com serves nothing: it tries a running set-up, of
// whatever kind, as a client of Socket.IO does, and says what is wrong with it.
//
// The folder deploy has an image, units and manifests to copy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

func main() {
	if status, asked := doctorMain(context.Background(), os.Args[1:], os.Stdout); asked {
		os.Exit(status)
	}
	cfg, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", strings.ReplaceAll(err.Error(), "\n", "; ")) // several are joined
		os.Exit(2)
	}
	if err := serve(cfg); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

// serve runs the gateway until SIGINT or SIGTERM, then drains it.
func serve(cfg *config) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, func() {
		stop()
		slog.Info("shutting down; another signal ends the process at once")
	})()

	listener, err := cfg.listenBy("tcp", cfg.listen, func() (net.Listener, error) { return listen(cfg.listen) })
	if err != nil {
		return err
	}
	if cfg.proxied != nil {
		listener = &proxyproto.Listener{Listener: listener, ConnPolicy: cfg.proxied}
	}
	server := &http.Server{
		Handler:           cfg.handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       75 * time.Second,
		// No ReadTimeout and no WriteTimeout: they would end long polls,
		// event streams and slow uploads.
		TLSConfig: cfg.tls,
	}
	for _, client := range []*redis.Client{cfg.redis, cfg.bus} {
		if client != nil {
			defer client.Close()
		}
	}
	if cfg.options.LameDuck > 0 && cfg.admin.addr == "" {
		slog.Warn("-lame-duck only delays the end without -admin: it is for load balancers that ask /readyz there")
	}
	operators, err := cfg.listenAdmin()
	if err != nil {
		return err
	}
	defer cfg.follow()()
	if h := cfg.options.Handover; h != nil { // nothing may fail behind this
		if err := h.Take(ctx); err != nil {
			return err
		}
	}
	defer cfg.serveAdmin(operators)() // until after the drain, which can be watched there
	defer succeed(cfg.options.Handover)()
	slog.Info("listening", "addr", listener.Addr().String())
	ready()
	return cfg.gateway.Serve(ctx, server, listener, cfg.drain)
}

// follow makes the pool follow the sources until stop is called.
func (cfg *config) follow() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	for _, source := range cfg.sources {
		following.Go(func() {
			if err := cfg.pool.Follow(ctx, source); err != nil {
				slog.Error("backends aren't followed any more", "err", err)
			}
		})
	}
	return func() {
		cancel()
		following.Wait()
	}
}

// raw returns what the PROXY protocol came through: behind its header, which has
// been read when there is a tunnel, it leaves the bytes as they are.
func raw(conn net.Conn) net.Conn {
	if c, ok := conn.(*proxyproto.Conn); ok {
		return c.Raw()
	}
	return conn
}

// build puts pool, affinity and gateway together.
func (cfg *config) build(backends []*balancer.Backend, chain affinity.Chain) error {
	poolOpts := &balancer.Options{
		Picker:    cfg.picker,
		Check:     &cfg.check,
		Transport: &balancer.Transport{Dial: cfg.dialer.DialContext},
	}
	cfg.load.options(poolOpts)
	pool, err := balancer.NewPool(poolOpts, backends...)
	if err != nil {
		return err
	}
	if err := cfg.load.share(pool, len(cfg.sources) > 0); err != nil {
		return err
	}
	var aff affinity.Affinity = chain
	if len(chain) == 1 {
		aff = chain[0]
	}
	cfg.pool = pool
	opts := &cfg.options
	opts.Affinity = aff
	opts.ClientIP = limpet.ClientIP{Trusted: cfg.trusted}
	opts.Upgrade = &upgrade.Proxy{Unwrap: raw}
	if err := cfg.door.build(opts.ClientIP, opts.Upgrade); err != nil {
		return err
	}
	if cfg.bus != nil {
		opts.Bus = &bus.Redis{Client: cfg.bus}
	}
	if cfg.takeover != "" {
		if opts.Handover, err = limpet.Takeover(context.Background(), cfg.takeover); err != nil {
			return err
		}
		if cfg.door.limit != nil {
			cfg.door.limit.Handover = opts.Handover
		}
	}
	cfg.gateway, err = limpet.NewGateway(pool, opts)
	if err != nil {
		return err
	}
	if cfg.accessLog != nil {
		cfg.gateway.Observe(limpet.AccessLog(cfg.accessLog, nil))
	}
	cfg.handler = cfg.gateway
	// A client that came without the cookie is given one, or its next request
	// would be picked for anew. But if the list goes on, the others tell where
	// it belongs, also when it keeps no cookies.
	if m, ok := chain[len(chain)-1].(*affinity.CookieMap); ok {
		assign := &limpet.AssignCookie{Cookie: http.Cookie{Name: m.Name}, Backends: m.Backends, Pool: pool}
		cfg.handler = assign.Handler(cfg.handler)
	}
	cfg.handler = cfg.door.handler(cfg.handler)
	return nil
}
