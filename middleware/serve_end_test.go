package middleware_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// Of the handshakes that are in flight when a gateway is told to end, each gets its tunnel,
// which is closed with 1012, or no connection. In both cases the client goes to another
// replica at once.
func TestServeCompletesHandshakes(t *testing.T) {
	t.Parallel()
	const handshakes = 600
	var asked atomic.Int32
	enough, let := make(chan struct{}), make(chan struct{})
	n := newNode(t, "a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == handshakes/2 {
			close(enough)
		}
		<-let
		echo.ServeHTTP(w, r)
	}))
	// Nothing here is to depend on how fast this machine is.
	pool := poolOf(t, &balancer.Options{
		Check:     &balancer.Check{Interval: time.Minute, Timeout: time.Minute},
		Transport: &balancer.Transport{DialTimeout: time.Minute},
	}, map[string]*node{"a": n})
	gw := newGateway(t, pool, &limpet.Options{Upgrade: &upgrade.Proxy{HandshakeTimeout: time.Minute}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- gw.Serve(ctx, &http.Server{Handler: gw}, l, 20*time.Second) }()
	var all sync.WaitGroup
	var completed, refused atomic.Int32
	for range handshakes {
		all.Go(func() {
			conn, _, err := websocket.Dial(t.Context(), "ws://"+l.Addr().String(), &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{}}})
			if errors.Is(err, syscall.ECONNREFUSED) {
				refused.Add(1)
				return
			}
			if err != nil {
				t.Errorf("a handshake: %v", err)
				return
			}
			defer conn.CloseNow()
			if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
				t.Errorf("a tunnel ended with %v, want 1012", err)
			}
			completed.Add(1)
		})
	}
	select {
	case <-enough:
	case <-time.After(time.Minute):
		t.Error("too few handshakes have reached the backend")
	}
	stop()
	eventually(t, "the end", func() bool { return gw.Ready() != nil })
	close(let)
	all.Wait()
	ok(t, <-ended)
	if completed.Load() < handshakes/2 {
		t.Errorf("%d of %d were completed, and %d refused", completed.Load(), handshakes, refused.Load())
	}
}

// serveWard runs Serve in front of one backend until stop is called, with a drain of 20 s. Its
// result comes on ended.
func serveWard(t *testing.T) (l *pipes, ctx context.Context, stop func(), ended chan error) {
	d := newWard(t, 1, nil)
	l = newPipes()
	ctx, stop = context.WithCancel(t.Context())
	t.Cleanup(stop)
	ended = make(chan error, 1)
	go func() { ended <- d.gw.Serve(ctx, &http.Server{Handler: d.gw}, l, 20*time.Second) }()
	return l, ctx, stop, ended
}

// A kept connection is told by its last answer that it is one: no request on it is lost, nor
// a handshake.
func TestServeDropsNoKeptConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, ctx, stop, ended := serveWard(t)
		var all sync.WaitGroup
		for i := range 60 {
			all.Go(func() {
				conn := l.dial()
				defer conn.Close()
				in := bufio.NewReader(conn)
				request := func(fields string) *http.Response {
					_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n"+fields+"\r\n")
					var res *http.Response
					if err == nil {
						res, err = http.ReadResponse(in, nil)
					}
					if err != nil {
						t.Errorf("connection %d was dropped: %v", i, err)
						return &http.Response{Close: true}
					}
					if res.StatusCode == 200 {
						io.Copy(io.Discard, res.Body)
					}
					return res
				}
				request("")
				if i%3 > 0 {
					for res := request(""); !res.Close; res = request("") {
						time.Sleep(time.Duration(i) * 10 * time.Millisecond)
					}
					return
				}
				// Its next request is a handshake, behind the end of the lame duck.
				<-ctx.Done()
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				res := request("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
				if head, err := in.Peek(4); res.StatusCode != 101 || err != nil || string(head[2:]) != "\x03\xf4" { // 1012
					t.Errorf("a handshake got %s, and then %q, %v", res.Status, head, err)
				}
			})
		}
		time.Sleep(time.Second)
		stop()
		all.Wait()
		ok(t, <-ended)
	})
}

// With nobody connected Serve ends at once.
func TestServeEndsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, _, stop, ended := serveWard(t)
		conn := l.dial()
		fetch(t, conn, "/")
		conn.Close()
		time.Sleep(time.Second)
		stop()
		began := time.Now()
		ok(t, <-ended)
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

// Connections that wait to be accepted when the gateway is told to end are served, by a
// listener that has deadlines. Others are closed at once.
func TestServeEmptiesItsQueue(t *testing.T) {
	t.Parallel()
	gw := newGateway(t, poolOf(t, nil, map[string]*node{"a": newNode(t, "a", nil)}), nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	let := make(chan struct{})
	var accepted atomic.Int32
	server := &http.Server{Handler: gw, ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
		accepted.Add(1)
		<-let
		return ctx
	}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	over := make(chan error, 1)
	go func() { over <- gw.Serve(ctx, server, l, 20*time.Second) }()
	var conns []net.Conn
	for range 20 {
		conn, err := net.Dial("tcp", l.Addr().String())
		ok(t, err)
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		ok(t, err)
		conns = append(conns, conn)
	}
	eventually(t, "the first connection", func() bool { return accepted.Load() == 1 })
	cancel()
	eventually(t, "the end", func() bool { return gw.Ready() != nil })
	close(let)
	for _, conn := range conns {
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		ok(t, err)
		if res.StatusCode != 200 || !res.Close {
			t.Errorf("%s, close %v", res.Status, res.Close)
		}
	}
	ok(t, <-over)
}
