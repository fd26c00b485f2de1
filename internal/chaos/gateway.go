//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/status"
)

const (
	fieldPin = "Chaos-Pin" // what an answer says of its client's pin

	checkInterval = 500 * time.Millisecond
	lameDuck      = time.Second     // above what the clients' load balancer takes to notice
	leaveWithin   = 2 * time.Second // a gateway's own drain
)

// gatewaySettings are what a gateway's process is told.
type gatewaySettings struct {
	ID       string
	Addr     string // for clients
	Admin    string // for the test: readiness, the status page's calls, and vitals
	Backends []string
	Redis    string // URL, "" for none
}

// vitals are what a gateway uses.
type vitals struct {
	Goroutines, Files int
	Heap              int64 // bytes, after a garbage collection
	Tunnels           int64
	Requests          int64 // at the backends
}

// runGateway is the main function of a gateway's process, which ends in order at SIGTERM.
func runGateway(s gatewaySettings) error {
	secrets := [][]byte{[]byte("a secret of 32 bytes, as all of the gateways have it")}
	learnt := &affinity.EngineIO{Secrets: secrets}
	options := &limpet.Options{
		Affinity:  affinity.Chain{learnt, &affinity.Cookie{Secrets: secrets}},
		PinHeader: fieldPin,
		Name:      s.ID,
		LameDuck:  lameDuck,
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if s.Redis != "" {
		redis.SetLogger(quiet{})
		client, err := bus.NewRedisClient(s.Redis)
		if err != nil {
			return err
		}
		learnt.Store = &affinity.Redis{Client: client, Timeout: time.Second} // the machine may be slow
		options.Bus = &bus.Redis{Client: client}
	}
	pool, err := balancer.ParsePool(&balancer.Options{
		Check:     &balancer.Check{Path: "/healthz", Interval: checkInterval},
		Transport: &balancer.Transport{IdleTimeout: time.Second}, // or the search for leaks would take longer
	}, s.Backends...)
	if err != nil {
		return err
	}
	gateway, err := limpet.NewGateway(pool, options)
	if err != nil {
		return err
	}
	operator, err := net.Listen("tcp", s.Admin)
	if err != nil {
		return err
	}
	go http.Serve(operator, adminOf(gateway))
	l, err := net.Listen("tcp", s.Addr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return gateway.Serve(ctx, &http.Server{Handler: gateway, ReadHeaderTimeout: 10 * time.Second}, l, leaveWithin)
}

// quiet keeps go-redis from printing each of its failed dials.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// adminOf returns what the test is served.
func adminOf(g *limpet.Gateway) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", g.Readyz)
	mux.Handle("/limpet/", status.New(g, &status.Options{Authorize: func(*http.Request) bool { return true }}))
	mux.HandleFunc("POST /join", func(w http.ResponseWriter, r *http.Request) {
		b, err := balancer.ParseBackend(r.FormValue("backend"))
		if err = errors.Join(err, g.Pool().Add(b)); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	mux.HandleFunc("/vitals", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(vitalsOf(g)) })
	mux.HandleFunc("/stacks", func(w http.ResponseWriter, _ *http.Request) {
		buf := make([]byte, 1<<20)
		w.Write(buf[:runtime.Stack(buf, true)])
	})
	return mux
}

func vitalsOf(g *limpet.Gateway) vitals {
	runtime.GC()
	runtime.GC() // what pools held is gone with the second one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, _ := os.ReadDir("/proc/self/fd") // none where there is no such folder
	s := g.Stats()
	return vitals{Goroutines: runtime.NumGoroutine(), Files: len(files), Heap: int64(m.HeapAlloc), Tunnels: s.Tunnels, Requests: s.Requests}
}
