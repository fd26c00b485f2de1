package middleware_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	limpet "github.com/limpet-go/limpet/middleware"
)

// A pipeNode is a backend within the process. Its transport reaches it whatever the URL.
type pipeNode struct {
	transport *balancer.Transport
	dead      atomic.Bool // nobody can connect
}

func newPipeNode(t *testing.T, h http.Handler) *pipeNode {
	n := &pipeNode{}
	l := newPipes()
	n.transport = &balancer.Transport{Dial: func(context.Context, string, string) (net.Conn, error) {
		if n.dead.Load() {
			return nil, errors.New("nobody is there")
		}
		return l.dial(), nil
	}}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return n
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

// dial returns a connection to the listener, or a closed one if it is closed.
func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
	case <-p.done:
		there.Close()
	}
	return here
}

// fetch sends a request over conn and returns the answer, with its body read.
func fetch(t *testing.T, conn net.Conn, path string) *http.Response {
	t.Helper()
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	return res
}

// health returns the status and the text of one of the handlers of a gateway's own health.
func health(h http.HandlerFunc) (int, string) {
	rec := httptest.NewRecorder()
	h(rec, httptest.NewRequest("GET", "/", nil))
	if rec.Header().Get("Cache-Control") != "no-store" || !strings.HasPrefix(rec.Header().Get("Content-Type"), "text/plain") {
		return 0, "wrong header"
	}
	return rec.Code, rec.Body.String()
}

func TestReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var status atomic.Int32
		status.Store(200)
		n := newPipeNode(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
		pool := poolOf(t, &balancer.Options{Transport: n.transport, StartDown: true, Check: &balancer.Check{Path: "/", Interval: time.Second}}, nil)
		gw := newGateway(t, pool, nil)
		for _, id := range []string{"a", "b"} {
			b, err := balancer.NewBackend(id, "http://"+id+".test", 1)
			ok(t, err)
			ok(t, pool.Add(b))
		}
		checked := func() { time.Sleep(time.Minute) }
		for i, step := range []struct {
			what  string
			do    func()
			ready bool
		}{
			{"before the first check", func() {}, false},
			{"both are well", func() { run(t, pool); checked() }, true},
			{"one is off", func() { ok(t, pool.Off("a")) }, true},
			{"both are off", func() { ok(t, pool.Off("b")) }, false},
			{"one is back, but drained", func() { ok(t, pool.Drain("a", 0)) }, false},
			{"one is back", func() { ok(t, pool.Undrain("a")) }, true},
			{"it is sick", func() { status.Store(503); checked() }, true},
			{"it is sick and drained", func() { ok(t, pool.Drain("a", 0)) }, false},
			{"it is dead", func() { ok(t, pool.Undrain("a")); n.dead.Store(true); checked() }, false},
			{"it is well again", func() { n.dead.Store(false); status.Store(200); checked() }, true},
			{"it is removed", func() { ok(t, pool.Remove("a")) }, false},
			{"the other one serves", func() { ok(t, pool.Undrain("b")) }, true},
			{"the gateway leaves", gw.Leave, false},
		} {
			step.do()
			err := gw.Ready()
			if (err == nil) != step.ready {
				t.Errorf("%d, %s: %v", i, step.what, err)
			}
			want, text := 200, "ok\n"
			if !step.ready {
				want, text = 503, "balancer: no backend is up\n"
			}
			if step.what == "the gateway leaves" {
				text = "limpet: the gateway is shutting down\n"
			} else if !step.ready && !errors.Is(err, balancer.ErrNoBackend) {
				t.Errorf("%d, %s: %v", i, step.what, err)
			}
			if code, got := health(gw.Readyz); code != want || got != text {
				t.Errorf("%d, %s: Readyz says %d %q, want %d %q", i, step.what, code, got, want, text)
			}
			if code, got := health(gw.Livez); code != 200 || got != "ok\n" {
				t.Errorf("%d, %s: Livez says %d %q", i, step.what, code, got)
			}
		}
	})
}

// A replica that starts isn't ready before it knows what is drained. It hears that at once,
// even if the others have just announced it.
func TestReadyOnceReplicasAreHeard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var memory bus.Memory
		start := func() *limpet.Gateway {
			gw := newGateway(t, balancer.Static("a=http://127.0.0.1:1", "b=http://127.0.0.1:2"), &limpet.Options{Bus: &memory})
			if gw.Ready() == nil {
				t.Error("a gateway is ready before it has begun to listen to its replicas")
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = gw.Run(ctx)
			}()
			t.Cleanup(func() {
				cancel()
				<-ended
			})
			synctest.Wait()
			return gw
		}
		ready := func(gw *limpet.Gateway) time.Duration {
			begin := time.Now()
			for gw.Ready() != nil {
				time.Sleep(10 * time.Millisecond)
			}
			return time.Since(begin)
		}
		first := start()
		if first.Ready() == nil {
			t.Error("the first one is ready before another could have said anything")
		}
		if took := ready(first); took > 510*time.Millisecond {
			t.Errorf("the first one, whom nobody tells anything, was ready after %v", took)
		}
		ok(t, first.Pool().Drain("a", 0))
		time.Sleep(20 * time.Millisecond) // it was announced right now
		second := start()
		if took := ready(second); took == 0 || took > 150*time.Millisecond {
			t.Errorf("the second one was ready after %v", took)
		}
		if s := second.Pool().Get("a").State(); s != draining {
			t.Errorf("the second one is ready, and the drained backend %v there", s)
		}
	})
}

func TestShutdownIsNotReady(t *testing.T) {
	t.Parallel()
	gw := newGateway(t, balancer.Static("a=http://127.0.0.1:1"), nil)
	ok(t, gw.Ready())
	ok(t, gw.Shutdown(t.Context()))
	if gw.Ready() == nil {
		t.Error("ready after Shutdown")
	}
}

// Readiness turns red, then everything is served for the lame duck's time, and only then
// the drain begins.
func TestLameDuck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const lameDuck, drain = 10 * time.Second, 5 * time.Second
		let := make(chan struct{})
		n := newPipeNode(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Header.Get("Upgrade") != "":
				echo.ServeHTTP(w, r)
			case r.URL.Path == "/poll":
				<-let
			}
		}))
		pool := poolOf(t, &balancer.Options{Transport: n.transport}, nil)
		b, err := balancer.NewBackend("a", "http://a.test", 1)
		ok(t, err)
		ok(t, pool.Add(b))
		gw := newGateway(t, pool, &limpet.Options{LameDuck: lameDuck})
		l := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- gw.Serve(ctx, &http.Server{Handler: gw}, l, drain) }()
		synctest.Wait()

		kept, polls := l.dial(), l.dial()
		if res := fetch(t, kept, "/"); res.StatusCode != 200 || res.Close {
			t.Errorf("before: %s, close %v", res.Status, res.Close)
		}
		polled := make(chan *http.Response, 1)
		go func() { polled <- fetch(t, polls, "/poll") }()
		synctest.Wait()
		ok(t, gw.Ready())

		cancel()
		left := time.Now()
		synctest.Wait()
		if gw.Ready() == nil {
			t.Error("still ready")
		}
		close(let)
		if res := <-polled; res.StatusCode != 200 || !res.Close {
			t.Errorf("a request under way: %s, close %v", res.Status, res.Close)
		}
		if res := fetch(t, kept, "/"); res.StatusCode != 200 || !res.Close {
			t.Errorf("on a kept connection: %s, close %v", res.Status, res.Close)
		}
		if _, err := kept.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("behind the answer: %v", err)
		}

		time.Sleep(lameDuck - time.Millisecond)
		late := l.dial()
		if res := fetch(t, late, "/"); res.StatusCode != 200 || !res.Close {
			t.Errorf("on a late connection: %s, close %v", res.Status, res.Close)
		}
		conn, _, err := websocket.Dial(t.Context(), "ws://x/", &websocket.DialOptions{HTTPClient: &http.Client{
			Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return l.dial(), nil }},
		}})
		if err != nil {
			t.Fatal(err)
		}
		talk(t, conn)
		if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
			t.Errorf("the tunnel ended with %v", err)
		}
		if after := time.Since(left); after < lameDuck {
			t.Errorf("the drain began after %v", after)
		}
		<-l.done
		ok(t, <-ended)
		if after := time.Since(left); after > lameDuck+drain {
			t.Errorf("ended after %v", after)
		}
	})
}

// Serve waits for nobody's notice if nobody was told to come, or if nobody can come.
func TestNoLameDuck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		before bool // ctx ends before Serve is called, and after that the listener breaks
	}{{"ctx has ended", true}, {"the listener breaks", false}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pool := poolOf(t, nil, nil)
				gw := newGateway(t, pool, &limpet.Options{LameDuck: time.Hour})
				l := newPipes()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				start := time.Now()
				ended := make(chan error, 1)
				if tt.before {
					cancel()
				}
				go func() { ended <- gw.Serve(ctx, &http.Server{Handler: gw}, l, time.Second) }()
				if !tt.before {
					synctest.Wait()
					cancel()
					synctest.Wait()
					l.Close()
				}
				if err := <-ended; (err == nil) != tt.before {
					t.Errorf("Serve: %v", err)
				}
				<-l.done
				if took := time.Since(start); took > time.Minute {
					t.Errorf("it took %v", took)
				}
				if gw.Ready() == nil {
					t.Error("still ready")
				}
			})
		})
	}
}

// A client of HTTP/2 opens a new connection for the request after the next.
func TestLeaveHTTP2(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, nil)
	gw := newGateway(t, pool, nil)
	srv := httptest.NewUnstartedServer(gw)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	reused := func() bool {
		var info httptrace.GotConnInfo
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { info = i }})
		req, err := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
		ok(t, err)
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.ReadAll(res.Body); err != nil || res.ProtoMajor != 2 || res.StatusCode != 200 || res.Header.Get("Connection") != "" {
			t.Errorf("%v %s %v, %v", res.Proto, res.Status, res.Header, err)
		}
		return info.Reused
	}
	reused()
	if !reused() {
		t.Error("a new connection before Leave")
	}
	gw.Leave()
	eventually(t, "a new connection", func() bool { return !reused() })
}

// A pool may be empty until its source names a backend. Until then the gateway isn't ready, which
// is told once.
func TestReadyWithEmptyPool(t *testing.T) {
	t.Parallel()
	pool, err := balancer.NewPool(nil)
	ok(t, err)
	log := &notes{}
	gw := newGateway(t, pool, &limpet.Options{Logger: log.logger()})
	for range 2 {
		if err := gw.Ready(); !errors.Is(err, balancer.ErrNoBackend) || !strings.Contains(err.Error(), "the pool has none yet") {
			t.Errorf("with an empty pool: %v", err)
		}
	}
	if said := log.about("the pool has no backend"); len(said) != 1 {
		t.Errorf("logged %q", said)
	}
	add(t, pool, "a")
	ok(t, gw.Ready())
}
