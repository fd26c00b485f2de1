package middleware_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// A pipeNet is a network of one server, for a bubble of virtual time.
type pipeNet struct {
	conns chan net.Conn
	stop  chan struct{}
	once  sync.Once
}

func (n *pipeNet) Accept() (net.Conn, error) {
	select {
	case conn := <-n.conns:
		return conn, nil
	case <-n.stop:
		return nil, net.ErrClosed
	}
}

func (n *pipeNet) Close() error {
	n.once.Do(func() { close(n.stop) })
	return nil
}

func (n *pipeNet) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (n *pipeNet) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case n.conns <- far:
		return near, nil
	case <-n.stop:
		return nil, net.ErrClosed
	}
}

// pipeServer serves h within the bubble until the test ends.
func pipeServer(t *testing.T, h http.Handler) *pipeNet {
	n := &pipeNet{conns: make(chan net.Conn), stop: make(chan struct{})}
	server := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(n)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return n
}

// A timed is a gateway in a bubble, in front of one node.
type timed struct {
	gw  *limpet.Gateway
	log *notes
	net *pipeNet
}

func newTimed(t *testing.T, node http.Handler, a affinity.Affinity, checked bool) *timed {
	backend := pipeServer(t, node)
	pool, err := balancer.NewPool(&balancer.Options{
		Logger: slog.New(slog.DiscardHandler), Transport: &balancer.Transport{Dial: backend.dial}, Check: &balancer.Check{Interval: time.Hour},
	})
	ok(t, err)
	add(t, pool, "a")
	if checked {
		run(t, pool)
		synctest.Wait()
	}
	g := &timed{log: &notes{}}
	g.gw = newGateway(t, pool, &limpet.Options{Affinity: a, Logger: g.log.logger()})
	g.net = pipeServer(t, g.gw)
	return g
}

// client returns a client of the gateway with these cookies, nil for none.
func (g *timed) client(t *testing.T, jar http.CookieJar) *http.Client {
	tr := &http.Transport{DialContext: g.net.dial}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Jar: jar}
}

// tunnel opens a tunnel, which the client leaves after a time, with these last words.
func (g *timed) tunnel(t *testing.T, stays time.Duration, words string) {
	conn, _ := g.net.dial(t.Context(), "", "")
	defer conn.Close()
	go io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Error(res, err)
	}
	time.Sleep(stays)
	io.WriteString(conn, words)
}

// workers are the workers of a node, which get requests in turn whatever the session.
type workers struct {
	mu   sync.Mutex
	all  [4]engine
	turn int
}

func (w *workers) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.turn++
	worker := &w.all[w.turn%len(w.all)]
	w.mu.Unlock()
	worker.ServeHTTP(rw, r)
}

// silent accepts WebSockets and says nothing on them.
var silent = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
	rw.Flush()
	io.Copy(io.Discard, conn)
})

const clientsClose = "\x88\x82\x00\x00\x00\x00\x03\xe8" // 1000, masked with zeros

func TestDoctorInTime(t *testing.T) {
	t.Parallel()
	cookie := func() affinity.Affinity { return &affinity.Cookie{Secrets: testKeys} }
	session := func() affinity.Affinity { return engineIO() }
	jar := func() http.CookieJar {
		jar, _ := cookiejar.New(nil)
		return jar
	}
	const url = "http://gateway.test"
	// crowd has n clients do something, each at a time of its own.
	crowd := func(n int, each func(i int)) {
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { each(i) })
		}
		wg.Wait()
	}
	leave := func(n int, every time.Duration, words string, stays func() time.Duration) func(*testing.T, *timed, http.Handler) {
		return func(t *testing.T, g *timed, _ http.Handler) {
			crowd(n, func(i int) {
				time.Sleep(time.Duration(i) * every)
				g.tunnel(t, stays(), words)
			})
		}
	}
	always := func(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

	for _, tt := range []struct {
		name      string
		affinity  func() affinity.Affinity
		node      http.Handler
		unchecked bool
		do        func(t *testing.T, g *timed, node http.Handler)
		code      string
		says      string
	}{
		{"workers that share an address", session, &workers{}, false, func(t *testing.T, g *timed, _ http.Handler) {
			c := g.client(t, nil)
			for range 10 {
				sid, _ := open(t, c, url)
				poll(t, c, url, sid)
				time.Sleep(2 * time.Second)
			}
		}, "several-workers", "sticky"},
		{"workers that share an address, and a cookie", cookie, &workers{}, false, func(t *testing.T, g *timed, _ http.Handler) {
			c := g.client(t, jar())
			for range 10 {
				sid, _ := open(t, c, url)
				poll(t, c, url, sid)
				time.Sleep(2 * time.Second)
			}
		}, "several-workers", "sticky"},
		{"a client that the node turns away", session, &engine{}, false, func(t *testing.T, g *timed, node http.Handler) {
			for i := range 500 {
				c := g.client(t, nil)
				sid, _ := open(t, c, url)
				if e := node.(*engine); i%20 == 0 {
					e.mu.Lock()
					plain, _, _ := strings.Cut(sid, ".")
					e.sessions[plain] = false
					e.mu.Unlock()
				}
				poll(t, c, url, sid)
				time.Sleep(time.Second)
			}
		}, "", ""},
		{"a node that restarts", session, &engine{}, false, func(t *testing.T, g *timed, node http.Handler) {
			for range 20 {
				crowd(50, func(int) {
					c := g.client(t, nil)
					sid, _ := open(t, c, url)
					time.Sleep(time.Second) // the node restarts
					e := node.(*engine)
					e.mu.Lock()
					e.sessions = nil
					e.mu.Unlock()
					poll(t, c, url, sid)
				})
				time.Sleep(10 * time.Minute)
			}
		}, "", ""},
		{"sessions that end after a while", session, &engine{}, false, func(t *testing.T, g *timed, node http.Handler) {
			for range 50 {
				c := g.client(t, nil)
				sid, _ := open(t, c, url)
				time.Sleep(45 * time.Second) // pingInterval + pingTimeout
				e := node.(*engine)
				e.mu.Lock()
				e.sessions = nil
				e.mu.Unlock()
				poll(t, c, url, sid)
			}
		}, "", ""},

		{"another gateway with other secrets", cookie, &engine{}, false, func(t *testing.T, g *timed, node http.Handler) {
			other := newTimed(t, node, &affinity.Cookie{Secrets: [][]byte{[]byte("the key of a replica that was set up alone")}}, true)
			cookies := jar()
			here, there := g.client(t, cookies), other.client(t, cookies)
			for range 250 {
				get(t, here, url)
				get(t, there, url)
				time.Sleep(time.Second)
			}
		}, "forged-pins", "100%"},
		{"another secret since today", cookie, &engine{}, false, func(t *testing.T, g *timed, node http.Handler) {
			before := newTimed(t, node, &affinity.Cookie{Secrets: [][]byte{[]byte("the key of a replica that was set up alone")}}, true)
			crowd(200, func(int) {
				cookies := jar()
				get(t, before.client(t, cookies), url)
				c := g.client(t, cookies)
				time.Sleep(rand.N(20 * time.Second))
				for range 10 {
					get(t, c, url)
					time.Sleep(25 * time.Second)
				}
			})
		}, "", ""},

		{"tunnels that are cut after a minute", cookie, silent, false, leave(20, 3*time.Second, "", always(time.Minute)), "regular-tunnel-age", "1m0s"},
		{"tunnels whose clients close them after a minute", cookie, silent, false, leave(40, 3*time.Second, clientsClose, always(time.Minute)), "", ""},
		{"tunnels that are cut when they are cut", cookie, silent, false, leave(100, 3*time.Second, "", func() time.Duration { return 5*time.Second + rand.N(5*time.Minute) }), "", ""},
		{"tunnels that are cut together", cookie, silent, false, leave(100, 0, "", always(time.Minute)), "", ""},
		{"tunnels of clients that only look in", cookie, silent, false, leave(100, 3*time.Second, "", always(time.Second)), "", ""},

		{"nobody runs the pool", cookie, &engine{}, true, func(t *testing.T, g *timed, _ http.Handler) {
			for range 12 {
				get(t, g.client(t, nil), url)
				time.Sleep(time.Second)
			}
		}, "no-health-checks", ""},
		{"somebody runs the pool", cookie, &engine{}, false, func(t *testing.T, g *timed, _ http.Handler) {
			for range 12 {
				get(t, g.client(t, nil), url)
				time.Sleep(time.Second)
			}
		}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := newTimed(t, tt.node, tt.affinity(), !tt.unchecked)
				tt.do(t, g, tt.node)
				synctest.Wait()
				if got := strings.Join(found(t, g.gw, g.log), " "); got != tt.code {
					t.Errorf("found %q, want %q: %+v", got, tt.code, g.gw.Stats().Findings)
				}
				if tt.says != "" && len(g.log.about(tt.says)) != 1 {
					t.Errorf("not a word of %q: %q", tt.says, g.log.about("finding"))
				}
			})
		})
	}
}
