package middleware_test

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	limpet "github.com/limpet-go/limpet/middleware"
)

var quiet = slog.New(slog.DiscardHandler)

// from returns a request of a client's peer.
func from(addr string, fields ...string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = addr
	setFields(r, fields)
	return r
}

// status serves a request and returns its status.
func status(h http.Handler, r *http.Request) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

// A desk is a handler whose requests stay until they are let go.
type desk struct {
	h       http.Handler
	arrived chan struct{}
	leave   chan struct{}
	left    chan int
}

func newDesk(l *limpet.Limit) *desk {
	d := &desk{arrived: make(chan struct{}), leave: make(chan struct{}), left: make(chan int)}
	d.h = l.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stay" {
			d.arrived <- struct{}{}
			<-d.leave
		}
	}))
	return d
}

// stay has a request stay, and fails the test if it may not.
func (d *desk) stay(t *testing.T, r *http.Request) {
	t.Helper()
	r.URL.Path = "/stay"
	go func() { d.left <- status(d.h, r) }()
	select {
	case <-d.arrived:
	case code := <-d.left:
		t.Fatalf("refused with %d", code)
	}
}

// letGo has one of the requests end.
func (d *desk) letGo() {
	d.leave <- struct{}{}
	<-d.left
}

func TestLimitConnections(t *testing.T) {
	t.Parallel()
	const direct, balancer = "192.0.2.1:1", "10.0.0.1:1"
	for _, tt := range []struct {
		name          string
		first, second *http.Request
		same          bool // client
	}{
		{"one address", from(direct), from("192.0.2.1:2"), true},
		{"two addresses", from(direct), from("192.0.2.2:1"), false},
		{"mapped", from(direct), from("[::ffff:192.0.2.1]:1"), true},
		{"one network of IPv6", from("[2001:db8::1]:1"), from("[2001:db8::ffff:ffff:ffff:2]:1"), true},
		{"two networks of IPv6", from("[2001:db8:0:1::1]:1"), from("[2001:db8:0:2::1]:1"), false},
		{"zone", from("[fe80::1%eth0]:1"), from("[fe80::2%eth1]:1"), true},
		{"forged fields", from(direct, "X-Forwarded-For: 198.51.100.1"), from(direct, "X-Forwarded-For: 198.51.100.2", "X-Real-Ip: 198.51.100.3"), true},
		{"a load balancer's clients", from(balancer, "X-Forwarded-For: 198.51.100.1"), from(balancer, "X-Forwarded-For: 198.51.100.2"), false},
		{"a load balancer's client, that lies", from(balancer, "X-Forwarded-For: 1.1.1.1, 198.51.100.1"), from(balancer, "X-Forwarded-For: 2.2.2.2, 198.51.100.1"), true},
		{"a load balancer's client and the same directly", from(balancer, "X-Forwarded-For: 192.0.2.1"), from(direct), true},
		{"Unix socket", from("@"), from("@"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := &limpet.Limit{Connections: 2, ClientIP: proxies, Logger: quiet}
			d := newDesk(l)
			d.stay(t, tt.first.Clone(t.Context()))
			d.stay(t, tt.first.Clone(t.Context()))
			w := httptest.NewRecorder()
			d.h.ServeHTTP(w, tt.second)
			if refused := w.Code == http.StatusTooManyRequests; refused != tt.same || refused != (w.Header().Get("Retry-After") != "") {
				t.Errorf("got %d with %v", w.Code, w.Header())
			}
			d.letGo()
			if code := status(d.h, tt.second); code != http.StatusOK {
				t.Errorf("got %d after one has left", code)
			}
			d.letGo()
			if s := l.Stats(); s.Open != 0 || (s.Connections == 1) != tt.same {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A handler that panics has left.
func TestLimitOfPanic(t *testing.T) {
	t.Parallel()
	l := &limpet.Limit{Logger: quiet}
	h := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	for _, r := range []*http.Request{from("192.0.2.1:1"), handshakeOf()} {
		func() {
			defer func() { _ = recover() }()
			h.ServeHTTP(httptest.NewRecorder(), r)
		}()
	}
	if s := l.Stats(); s.Open != 0 || s.Tunnels != 0 {
		t.Errorf("%+v", s)
	}
}

func TestLimitRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &limpet.Limit{Rate: 10, Burst: 5, Logger: quiet}
		h := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		passed := func(addr string, n int) (ok int) {
			for range n {
				if status(h, from(addr)) == http.StatusOK {
					ok++
				}
			}
			return ok
		}
		if got := passed("192.0.2.1:1", 100); got != 5 {
			t.Errorf("%d passed at once", got)
		}
		if got := passed("192.0.2.2:1", 100); got != 5 {
			t.Errorf("%d of another client passed", got)
		}
		time.Sleep(200 * time.Millisecond) // of what was refused nothing was counted
		if got := passed("192.0.2.1:1", 100); got != 2 {
			t.Errorf("%d passed after 0.2 s", got)
		}
		time.Sleep(time.Hour)
		if got := passed("192.0.2.1:1", 100); got != 5 {
			t.Errorf("%d passed after an hour", got)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, from("192.0.2.1:1"))
		if again := w.Header().Get("Retry-After"); w.Code != http.StatusTooManyRequests || again != "1" {
			t.Errorf("%d, Retry-After %q", w.Code, again)
		}
	})
}

// The limits for all.
func TestLimitOfAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &limpet.Limit{Handshakes: 3, Logger: quiet}
		h := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		codes := make(map[int]int)
		for i := range 10 {
			r := handshakeOf()
			r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", i)
			codes[status(h, r)]++
		}
		if codes[200] != 3 || codes[503] != 7 || l.Stats().Handshakes != 7 {
			t.Errorf("handshakes: %v, %+v", codes, l.Stats())
		}
		if code := status(h, from("192.0.2.1:1")); code != http.StatusOK {
			t.Errorf("a plain request got %d", code)
		}
		time.Sleep(time.Second)
		if code := status(h, handshakeOf()); code != http.StatusOK {
			t.Errorf("after a second: %d", code)
		}
	})
	l := &limpet.Limit{Tunnels: 2, Logger: quiet}
	d := newDesk(l)
	d.stay(t, handshakeOf())
	d.stay(t, handshakeOf())
	w := httptest.NewRecorder()
	d.h.ServeHTTP(w, handshakeOf())
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || l.Stats().Tunnels != 2 || l.Stats().TooManyTunnels != 1 {
		t.Errorf("a third tunnel: %d, %+v", w.Code, l.Stats())
	}
	d.letGo()
	if code := status(d.h, handshakeOf()); code != http.StatusOK {
		t.Errorf("after one has ended: %d", code)
	}
	d.letGo()
}

func TestLimitHeaders(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ limit, fields, want int }{
		{0, 100, 200}, {0, 101, 431}, {5, 5, 200}, {5, 6, 431}, {-1, 10_000, 200},
	} {
		r := from("192.0.2.1:1")
		for i := range tt.fields {
			r.Header.Add("Field-"+strconv.Itoa(i%3), "x") // lines of the same name count too
		}
		h := (&limpet.Limit{Headers: tt.limit, Logger: quiet}).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		if code := status(h, r); code != tt.want {
			t.Errorf("%d fields, limit %d: %d", tt.fields, tt.limit, code)
		}
	}
}

// A client can't get rid of its count by many other addresses, and however many come, the
// memory is bounded.
func TestLimitEviction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const clients = 100
		l := &limpet.Limit{Rate: 10, Burst: 5, Connections: 3, Clients: clients, Logger: quiet}
		d := newDesk(l)
		flood := func(n, each int) (ok int) {
			for i := range n {
				for range each {
					if status(d.h, from(fmt.Sprintf("[2001:db8:%x:%x::1]:1", i>>16, i&0xffff))) == http.StatusOK {
						ok++
					}
				}
			}
			return ok
		}
		const a = "192.0.2.1:1"
		for range 3 {
			d.stay(t, from(a))
		}
		for range 20 { // a round that fills the table, once everybody has recovered
			time.Sleep(time.Minute)
			flood(clients, 1)
		}
		flood(5_000, 1)
		time.Sleep(time.Minute) // it has its burst again, but not its connections
		if code := status(d.h, from(a)); code != http.StatusTooManyRequests {
			t.Errorf("a client with all its connections open got %d behind a flood", code)
		}
		if s := l.Stats(); s.Clients > clients+3 || s.Open != 3 {
			t.Errorf("%+v", s)
		}
		for range 3 {
			d.letGo()
		}

		// All use up what they have, so that nobody may be forgotten: those who come now
		// are one client.
		time.Sleep(time.Minute)
		flood(clients, 5)
		for range 5 {
			status(d.h, from(a))
		}
		if got := flood(5_000, 1); got > 5 {
			t.Errorf("%d requests of 5,000 new addresses passed while the table was full", got)
		}
		if code := status(d.h, from(a)); code != http.StatusTooManyRequests {
			t.Errorf("a client that has used its burst got %d", code)
		}
		time.Sleep(time.Second)
		if code := status(d.h, from(a)); code != http.StatusOK {
			t.Errorf("got %d when there was room again", code)
		}
	})
}

// A client whose tunnel ends after the table has forgotten it still owes what it has used.
func TestLimitEvictionKeepsDebt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &limpet.Limit{Rate: 10, Burst: 50, Clients: 10, Logger: quiet}
		d := newDesk(l)
		const a = "192.0.2.1:1"
		d.stay(t, from(a))
		for i := range 20 { // it is pushed out of the table
			status(d.h, from(fmt.Sprintf("192.0.2.%d:1", 100+i)))
			time.Sleep(time.Second)
		}
		for status(d.h, from(a)) == http.StatusOK {
		}
		d.letGo()
		if code := status(d.h, from(a)); code != http.StatusTooManyRequests {
			t.Errorf("got %d with a burst used up", code)
		}
	})
}

// acceptKey answers a Sec-WebSocket-Key (RFC 6455, section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// dialAs opens a WebSocket and returns the status; the connection is nil unless it is 101.
func dialAs(t *testing.T, url string) (*websocket.Conn, int) {
	t.Helper()
	c, res, err := websocket.Dial(t.Context(), url, nil)
	if err != nil && res == nil {
		t.Fatal(err)
	}
	if c != nil {
		t.Cleanup(func() { c.CloseNow() })
	}
	return c, res.StatusCode
}

// A tunnel counts as long as it is open, whether its handler stays, as that of a server of
// WebSockets, or returns at once, as that of the gateway.
func TestLimitOfTunnels(t *testing.T) {
	t.Parallel()
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		_, _, _ = c.Read(r.Context())
	})
	pool, _ := cluster(t, 1, echo)
	hijack := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		release := limpet.HoldCount(r.Context())
		go func() {
			defer release()
			defer release() // more than once is harmless
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+acceptKey(r.Header.Get("Sec-WebSocket-Key"))+"\r\n\r\n")
			_, _ = io.Copy(io.Discard, rw)
		}()
	})
	for name, h := range map[string]http.Handler{"gateway": newGateway(t, pool, nil), "own server": echo, "hijacked": hijack} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, outer := &limpet.Limit{Connections: 2, Logger: quiet}, &limpet.Limit{Logger: quiet}
			srv := httptest.NewServer(outer.Handler(l.Handler(h)))
			t.Cleanup(srv.Close)
			first, code := dialAs(t, srv.URL)
			_, again := dialAs(t, srv.URL)
			if code != 101 || again != 101 {
				t.Fatalf("got %d and %d", code, again)
			}
			if _, code := dialAs(t, srv.URL); code != http.StatusTooManyRequests {
				t.Errorf("a third tunnel: %d", code)
			}
			if got := outer.Stats().Tunnels; got != 2 {
				t.Errorf("a Limit in front of it counts %d tunnels", got)
			}
			first.CloseNow()
			eventually(t, "the end of a tunnel", func() bool { return l.Stats().Tunnels == 1 && l.Stats().Open == 1 && outer.Stats().Open == 1 })
			second, code := dialAs(t, srv.URL)
			if code != 101 {
				t.Errorf("after one has ended: %d", code)
			}
			if second != nil {
				second.CloseNow()
			}
		})
	}
}

// Each stream of an HTTP/2 connection counts.
func TestLimitOfStreams(t *testing.T) {
	t.Parallel()
	l := &limpet.Limit{Connections: 3, Logger: quiet}
	d := newDesk(l)
	srv := httptest.NewUnstartedServer(d.h)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	for range 3 {
		go func() {
			if res, err := srv.Client().Get(srv.URL + "/stay"); err == nil {
				res.Body.Close()
			}
			d.left <- 0
		}()
		<-d.arrived
	}
	res, err := srv.Client().Get(srv.URL)
	if err != nil || res.ProtoMajor != 2 || res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a fourth stream: %v, %v", res, err)
	}
	for range 3 {
		d.letGo()
	}
}

// What is refused is logged once a second, and names a proxy that may have been forgotten.
func TestLimitLogs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		l := &limpet.Limit{Rate: 1, Burst: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		h := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		for range 100 {
			status(h, from("10.0.0.9:1", "X-Forwarded-For: 198.51.100.1"))
		}
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "limit=Rate client=10.0.0.9") || !strings.Contains(got, "ClientIP.Trusted") {
			t.Errorf("logged %q", got)
		}
		if s := l.Stats(); s.Rate != 99 {
			t.Errorf("%+v", s)
		}
	})
}

func TestLimitFindsMistakes(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]*limpet.Limit{
		"Tunnels": {Tunnels: -1}, "Handshakes": {Handshakes: -1}, "Clients": {Clients: -1}, "Rate": {Rate: 1e9}, "Burst": {Rate: -1, Burst: 1},
	} {
		err := l.Validate()
		if err == nil || !strings.Contains(err.Error(), "Limit."+name+" ") {
			t.Errorf("%s: %v", name, err)
		}
		func() {
			defer func() {
				if said, _ := recover().(error); said == nil || said.Error() != err.Error() {
					t.Errorf("%s: Handler says %v, and Validate %v", name, said, err)
				}
			}()
			l.Handler(http.NotFoundHandler())
		}()
	}
	if err := new(limpet.Limit).Validate(); err != nil {
		t.Error(err)
	}
}

// A request that passes costs no allocation.
func TestLimitAllocations(t *testing.T) {
	l := &limpet.Limit{Rate: 1e6}
	h := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r, w := from("192.0.2.1:1", "Cookie: a=b"), &writer{header: make(http.Header)}
	if n := testing.AllocsPerRun(1000, func() { h.ServeHTTP(w, r) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
