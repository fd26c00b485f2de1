package middleware_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// Clients stay where they have come to. So a crowd that comes within a second must lie evenly,
// although the backends, which are well but busy, are silent now and then: none of three has
// less than half of its share. Whoever waits goes elsewhere, and so does more or less of the
// crowd by chance; but to shed all who come later must be left for backends that are ill.
func TestHerdLiesEvenly(t *testing.T) {
	t.Parallel()
	const clients = 300
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				at := herd(t, seed, clients)
				if len(at) != 3 || min(at["a"], at["b"], at["c"]) < clients/3/2 {
					t.Errorf("they lie at %v", at)
				}
			})
		})
	}
}

// herd has clients come within a second to a gateway before three busy backends, and returns
// how many have come to each.
func herd(t *testing.T, seed uint64, clients int) map[string]int {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	nodes := make(map[string]*pipes)
	transport := &balancer.Transport{Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
		id, _, _ := strings.Cut(addr, ".")
		return nodes[id].dial(), nil
	}}
	pool, err := balancer.NewPool(&balancer.Options{
		Transport: transport, Logger: slog.New(slog.DiscardHandler), Check: &balancer.Check{Path: "/health"},
	})
	ok(t, err)
	for i, id := range []string{"a", "b", "c"} {
		nodes[id] = newPipes()
		busyNode(ctx, t, &all, nodes[id], id, rand.New(rand.NewPCG(seed, uint64(i))))
		b, err := balancer.NewBackend(id, "http://"+id+".test", 1)
		ok(t, err)
		ok(t, pool.Add(b))
	}
	gw := newGateway(t, pool, nil)
	all.Go(func() { pool.Run(ctx) })
	time.Sleep(5 * time.Second)

	var herd sync.WaitGroup
	var mu sync.Mutex
	at := make(map[string]int)
	chance := rand.New(rand.NewPCG(seed, 3))
	for range clients {
		comes := time.Duration(chance.Float64() * float64(time.Second))
		herd.Go(func() {
			time.Sleep(comes)
			w := httptest.NewRecorder()
			gw.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			mu.Lock()
			at[w.Body.String()]++
			mu.Unlock()
			for range 2 { // it goes on, at its home
				time.Sleep(time.Second)
				r := httptest.NewRequest("POST", "/", nil)
				for _, c := range w.Result().Cookies() {
					r.AddCookie(c)
				}
				gw.ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
	herd.Wait()
	cancel()
	all.Wait()
	transport.CloseIdleConnections()
	return at
}

// busyNode serves a backend that does one thing at a time, each in 3 ms, and is silent for 100
// to 400 ms about each 400 ms.
func busyNode(ctx context.Context, t *testing.T, all *sync.WaitGroup, l net.Listener, id string, chance *rand.Rand) {
	turn := make(chan struct{}, 1)
	do := func(takes time.Duration) {
		turn <- struct{}{}
		time.Sleep(takes)
		<-turn
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		do(3 * time.Millisecond)
		io.WriteString(w, id)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	all.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(time.Duration(chance.ExpFloat64() * float64(400*time.Millisecond)))
			do(100*time.Millisecond + time.Duration(chance.Float64()*float64(300*time.Millisecond)))
		}
	})
}
