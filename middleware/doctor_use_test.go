package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	limpet "github.com/limpet-go/limpet/middleware"
)

// notes are the warnings that a logger was told.
type notes struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (n *notes) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.buf.Write(b)
}

func (n *notes) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(n, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// about returns the warnings with this word.
func (n *notes) about(word string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var found []string
	for line := range strings.Lines(n.buf.String()) {
		if strings.Contains(line, word) {
			found = append(found, line)
		}
	}
	return found
}

// A gateway with a Bus that nobody runs says so, to its log and to who closes a
// session; one that runs says nothing.
func TestBusThatIsNeverRun(t *testing.T) {
	t.Parallel()
	for _, runs := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var log notes
			pool, err := balancer.NewPool(&balancer.Options{Logger: slog.New(slog.DiscardHandler)})
			ok(t, err)
			gw := newGateway(t, pool, &limpet.Options{Bus: &bus.Memory{}, Logger: log.logger()})
			serve := func() { gw.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)) }
			time.Sleep(time.Hour) // it is the first request that counts
			serve()
			time.Sleep(9 * time.Second)
			serve()
			if runs {
				runGateway(t, gw)
				synctest.Wait()
			}
			if said := log.about("gateway.Run"); len(said) > 0 {
				t.Errorf("warned too early: %q", said)
			}
			time.Sleep(2 * time.Second)
			for range 3 {
				serve()
				time.Sleep(time.Minute)
			}
			if said := log.about("gateway.Run"); runs != (len(said) == 0) || len(said) > 1 {
				t.Errorf("runs %v: warned %q", runs, said)
			}
			err = gw.CloseSession(t.Context(), "key", 4001, "")
			if runs != (err == nil) || err != nil && !strings.Contains(err.Error(), "gateway.Run") {
				t.Errorf("runs %v: CloseSession: %v", runs, err)
			}
		})
	}
}

// Run can be called again after it has returned, and the gateway then gets messages again.
func TestRunAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1)
		pool := f.start(nil, "a", "b", "c")
		f.settle()
		gw := newGateway(t, pool, &limpet.Options{Bus: f.bus})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- gw.Run(ctx) }()
		synctest.Wait()
		if err := gw.Run(ctx); err == nil || !strings.Contains(err.Error(), "one of them is enough") {
			t.Errorf("a second Run: %v", err)
		}
		time.Sleep(5 * time.Second)
		cancel()
		ok(t, <-ended)
		time.Sleep(time.Minute)
		runGateway(t, gw)
		ok(t, f.pools[0].Drain("a", time.Hour))
		time.Sleep(time.Second)
		if pool.Get("a").State() != balancer.Draining {
			t.Error("what another replica decided wasn't heard by a Run after the first")
		}
	})
}

// deafBus can't be subscribed to.
type deafBus struct{ bus.Memory }

func (*deafBus) Subscribe(context.Context, ...string) (bus.Subscription, error) {
	return nil, errors.New("no such bus")
}

func TestBusThatFailsIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log notes
		gw := newGateway(t, balancer.Static("a=http://127.0.0.1:1"), &limpet.Options{Bus: &deafBus{}, Logger: log.logger()})
		runGateway(t, gw)
		time.Sleep(time.Minute)
		if said := log.about("no such bus"); len(said) != 1 {
			t.Errorf("warned %d times: %q", len(said), said)
		}
	})
}

// A warning about the time limits of the server is given once, with and without Serve.
func TestServerTimeLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		server *http.Server
		want   bool
	}{
		{"none", &http.Server{}, false},
		{"harmless ones", &http.Server{ReadHeaderTimeout: time.Minute, IdleTimeout: time.Minute}, false},
		{"of answers", &http.Server{WriteTimeout: time.Minute}, true},
		{"of requests", &http.Server{ReadTimeout: time.Minute}, true},
		{"both", &http.Server{ReadTimeout: time.Minute, WriteTimeout: time.Minute}, true},
	} {
		for _, own := range []bool{true, false} {
			var log notes
			pool, _ := cluster(t, 1, nil)
			gw := newGateway(t, pool, &limpet.Options{Logger: log.logger()})
			server := &http.Server{
				Handler: gw, ReadTimeout: tt.server.ReadTimeout, WriteTimeout: tt.server.WriteTimeout,
				ReadHeaderTimeout: tt.server.ReadHeaderTimeout, IdleTimeout: tt.server.IdleTimeout,
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			ok(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				if own {
					ended <- server.Serve(l)
				} else {
					ended <- gw.Serve(ctx, server, l, 0)
				}
			}()
			for range 3 {
				get(t, newClient(t), "http://"+l.Addr().String())
			}
			cancel()
			_ = server.Close()
			<-ended
			if said := log.about("ReadHeaderTimeout"); tt.want != (len(said) == 1) || len(said) > 1 {
				t.Errorf("%s, own server %v: warned %q", tt.name, own, said)
			}
		}
	}
}

// What a proxy says that nobody trusts is told once, if it may be a proxy at all.
func TestDistrustIsTold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, peer, field string
		want              bool
	}{
		{"private", "192.168.0.9:1234", "X-Forwarded-For", true},
		{"loopback", "127.0.0.1:1234", "X-Forwarded-Proto", true},
		{"private, IPv6", "[fc12::9]:1234", "X-Forwarded-For", true},
		{"link-local", "[fe80::9%eth0]:1234", "X-Forwarded-Host", true},
		{"behind the NAT of a carrier or a cloud", "100.64.0.9:1234", "X-Forwarded-For", true},
		{"trusted", "10.0.0.9:1234", "X-Forwarded-For", false},
		{"a stranger, who may say what he likes", "198.51.100.9:1234", "X-Forwarded-For", false},
		{"a field that nobody is believed", "192.168.0.9:1234", "X-Real-Ip", false},
		{"no such field", "192.168.0.9:1234", "X-Forward", false},
		{"a Unix socket", "@", "X-Forwarded-For", false},
	} {
		var log notes
		pool, err := balancer.NewPool(&balancer.Options{Logger: slog.New(slog.DiscardHandler)})
		ok(t, err)
		gw := newGateway(t, pool, &limpet.Options{ClientIP: proxies, Logger: log.logger()})
		for range 3 {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = tt.peer
			r.Header.Set(tt.field, "203.0.113.7")
			gw.ServeHTTP(httptest.NewRecorder(), r)
		}
		said := log.about("ClientIP.Trusted")
		if tt.want != (len(said) == 1) || len(said) > 1 || tt.want && !strings.Contains(said[0], "field="+tt.field) {
			t.Errorf("%s: warned %q", tt.name, said)
		}
	}
}
