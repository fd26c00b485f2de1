package balancer_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A keeper is a backend that keeps its connections.
type keeper struct {
	mu       sync.Mutex
	dials    int
	requests int
	answer   string        // to each request
	refuses  bool          // new connections
	hangs    bool          // on all connections
	idle     time.Duration // after which it closes a connection; 0: never
}

func (k *keeper) set(f func(*keeper)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(k)
}

// counts returns the numbers of dials and requests since the last call.
func (k *keeper) counts() (dials, requests int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer func() { k.dials, k.requests = 0, 0 }()
	return k.dials, k.requests
}

func (k *keeper) dial(context.Context, string, string) (net.Conn, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dials++
	if k.refuses {
		return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
	}
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		for in := bufio.NewReader(far); ; {
			if k.idle > 0 {
				far.SetReadDeadline(time.Now().Add(k.idle))
			}
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			k.mu.Lock()
			k.requests++
			answer, hangs := k.answer, k.hangs
			k.mu.Unlock()
			if hangs {
				io.Copy(io.Discard, far)
				return
			}
			if _, err := io.WriteString(far, answer); err != nil {
				return
			}
		}
	}()
	return near, nil
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" // to HEAD

// keep runs a pool of a, which is k, and another backend, whose checks keep their connections.
func keep(t *testing.T, check balancer.Check, f func(*testing.T, *balancer.Pool, *keeper, *log)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, other, l := &keeper{answer: ok}, &keeper{answer: ok}, &log{}
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "a.test:80" {
				return k.dial(ctx, network, addr)
			}
			return other.dial(ctx, network, addr)
		}
		check.Path, check.KeepAlive = "/health", true
		p := newPool(t, &balancer.Options{Check: &check, Transport: &balancer.Transport{Dial: dial}}, "a", "b")
		p.OnChange(l.note)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		sleep(200 * time.Millisecond)
		f(t, p, k, l)
		cancel()
		must(t, <-done)
		synctest.Wait() // for the backend's side of the connection: a leak would be a deadlock
	})
}

func TestChecksKeepTheirConnection(t *testing.T) {
	for _, tt := range []struct {
		name   string
		check  balancer.Check
		answer string
		idle   time.Duration
		kept   bool
	}{
		{"HEAD", balancer.Check{}, ok, 0, true},
		{"GET", balancer.Check{Method: "GET"}, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0, true},
		{"chunked", balancer.Check{Method: "GET"}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 0, true},
		{"a longer page", balancer.Check{Method: "GET"}, "HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n" + strings.Repeat("x", 3000), 0, true},
		{"a page without a length", balancer.Check{Method: "GET"}, "HTTP/1.1 204 No Content\r\n\r\n", 0, true},
		{"a long header", balancer.Check{}, "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 3000) + "\r\n\r\n", 0, true},
		{"early hints", balancer.Check{}, "HTTP/1.1 103 Early Hints\r\n\r\n" + ok, 0, true},
		{"Connection: keep-alive", balancer.Check{}, "HTTP/1.1 200 OK\r\nconnection: Keep-Alive\r\nKeep-Alive: timeout=5\r\n\r\n", 0, true},
		{"Connection: close after others", balancer.Check{Method: "GET"}, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, close\r\n\r\nok", 0, false},
		{"more than a page", balancer.Check{Method: "GET"}, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", 0, false},
		{"Connection: close", balancer.Check{}, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", 0, false},
		{"HTTP/1.0", balancer.Check{}, "HTTP/1.0 200 OK\r\n\r\n", 0, false},
		{"more than the answer", balancer.Check{}, ok + "x", 0, false},
		{"closes sooner", balancer.Check{}, ok, 100 * time.Millisecond, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keep(t, tt.check, func(t *testing.T, p *balancer.Pool, k *keeper, l *log) {
				k.set(func(k *keeper) { k.answer, k.idle = tt.answer, tt.idle })
				sleep(10 * time.Second)
				k.counts()
				sleep(300 * time.Second)
				l.want(t)
				dials, requests := k.counts()
				if requests < 300 || requests > 350 {
					t.Errorf("%d requests in 300 s", requests)
				}
				// Each thirtieth check is made on a new connection too.
				if (dials < 20) != tt.kept || tt.kept && dials < 8 {
					t.Errorf("%d connections for %d requests", dials, requests)
				}
			})
		})
	}
}

// A kept connection that works doesn't hide that new ones aren't taken, and shows that the
// backend lives.
func TestKeptConnectionBesideNewOnes(t *testing.T) {
	keep(t, balancer.Check{}, func(t *testing.T, p *balancer.Pool, k *keeper, l *log) {
		k.set(func(k *keeper) { k.refuses = true })
		sleep(35 * time.Second)
		l.want(t, "a up-draining")
		sleep(time.Minute)
		l.want(t)
		k.set(func(k *keeper) { k.refuses = false })
		sleep(4 * time.Second)
		l.want(t, "a draining-up")

		// A failed request has a new connection tried at once.
		k.set(func(k *keeper) { k.refuses = true })
		p.Report(p.Get("a"), syscall.ECONNREFUSED)
		sleep(300 * time.Millisecond)
		l.want(t, "a up-draining")
	})
}

func TestKeptConnectionOfAHungBackend(t *testing.T) {
	keep(t, balancer.Check{}, func(t *testing.T, p *balancer.Pool, k *keeper, l *log) {
		lost := p.Get("a").Lost()
		k.set(func(k *keeper) { k.hangs = true })
		select {
		case <-lost:
		case <-time.After(2*time.Second + time.Millisecond): // interval + 2 x timeout, as without
			t.Error("not lost in time")
		}
		k.set(func(k *keeper) { k.hangs = false })
		sleep(3 * time.Second)
		if s := p.Get("a").State(); s != balancer.Up {
			t.Errorf("back, and %v", s)
		}
	})
}

func TestKeptConnectionOfASickBackend(t *testing.T) {
	keep(t, balancer.Check{}, func(t *testing.T, p *balancer.Pool, k *keeper, l *log) {
		k.set(func(k *keeper) { k.answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n" })
		sleep(3 * time.Second)
		l.want(t, "a up-draining")
		k.set(func(k *keeper) { k.answer = ok })
		sleep(3 * time.Second)
		l.want(t, "a draining-up")
	})
}
