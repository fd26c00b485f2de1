package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// A generation is a gateway as a process has one, which takes the place of the one before.
type generation struct {
	gateway *limpet.Gateway
	pool    *balancer.Pool
	h       *limpet.Handover
	addr    string
	stop    func()
	ended   chan error // what Serve has returned
	lru     *affinity.LRU
	limit   *limpet.Limit // in front of the gateway; nil for none
}

// generationOf starts one at path. Serve runs from the beginning; follows waits until it has
// taken everything.
func generationOf(t *testing.T, path string, nodes map[string]*node, tune func(*limpet.Handover)) *generation {
	t.Helper()
	g := &generation{lru: &affinity.LRU{}}
	g.start(t, path, nodes, tune, &limpet.Options{
		PinHeader: "Limpet-Pin",
		Affinity:  affinity.Chain{&affinity.Cookie{Logger: slog.New(slog.DiscardHandler)}, &affinity.Table{Key: affinity.Header("X-User"), Store: g.lru}},
	})
	return g
}

// start has g serve at path with these options.
func (g *generation) start(t *testing.T, path string, nodes map[string]*node, tune func(*limpet.Handover), opts *limpet.Options) {
	t.Helper()
	h, err := limpet.Takeover(t.Context(), path)
	ok(t, err)
	if tune != nil {
		tune(h)
	}
	l, err := h.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	g.h, g.addr, g.ended = h, l.Addr().String(), make(chan error, 1)
	g.pool = poolOf(t, &balancer.Options{Logger: slog.New(slog.DiscardHandler), Check: &balancer.Check{Interval: 100 * time.Millisecond}}, nodes)
	opts.Handover, opts.Logger = h, slog.New(slog.DiscardHandler)
	g.gateway, err = limpet.NewGateway(g.pool, opts)
	ok(t, err)
	var handler http.Handler = g.gateway
	if g.limit != nil {
		g.limit.Handover, g.limit.Logger = h, opts.Logger
		handler = g.limit.Handler(handler)
	}
	ctx, stop := context.WithCancel(t.Context())
	g.stop = stop
	go func() { g.ended <- g.gateway.Serve(ctx, &http.Server{Handler: handler}, l, time.Second) }()
	t.Cleanup(func() {
		stop()
		select {
		case <-g.ended:
		case <-time.After(patience):
			t.Error("Serve did not return")
		}
	})
}

// follows waits until g serves, and the one before is gone.
func (g *generation) follows(t *testing.T, before *generation) {
	t.Helper()
	select {
	case <-before.h.Gone():
	case err := <-g.ended:
		t.Fatalf("it has ended: %v", err)
	case <-time.After(patience):
		t.Fatal("nothing was handed over")
	}
}

// returned waits until Serve has returned.
func (g *generation) returned(t *testing.T) {
	t.Helper()
	select {
	case err := <-g.ended:
		ok(t, err)
		g.ended <- nil
	case <-time.After(patience):
		t.Fatal("Serve did not return")
	}
}

// converse sends numbered messages on a WebSocket, and fails unless each comes back in its place,
// until stop is closed.
func converse(t *testing.T, conn *websocket.Conn, stop <-chan struct{}, sent *atomic.Int64) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			conn.Close(websocket.StatusNormalClosure, "")
			return
		default:
		}
		want := fmt.Sprint("message ", i, strings.Repeat(".", i*37%2000))
		err := conn.Write(t.Context(), websocket.MessageText, []byte(want))
		var got []byte
		if err == nil {
			_, got, err = conn.Read(t.Context())
		}
		if err != nil || string(got) != want {
			t.Errorf("message %d: %.40q, %v", i, got, err)
			return
		}
		sent.Add(1)
	}
}

// WebSockets notice nothing of several hand-overs in a row, nor do plain requests, and what the
// gateway knows goes along.
func TestTakeover(t *testing.T) {
	t.Parallel()
	nodes := map[string]*node{"a": newNode(t, "a", echo), "b": newNode(t, "b", echo)}
	nodes["c"] = newNode(t, "c", nil)
	nodes["d"] = newNode(t, "d", nil)
	path := filepath.Join(t.TempDir(), "takeover")
	g := generationOf(t, path, nodes, nil)
	ok(t, g.pool.Drain("c", time.Hour))
	ok(t, g.pool.SetWeight("d", 7))

	stop := make(chan struct{})
	var all sync.WaitGroup
	var sent, asked atomic.Int64
	ok(t, g.pool.Off("d")) // so that WebSockets go to a and b
	for range 20 {
		conn, _, err := websocket.Dial(t.Context(), "ws://"+g.addr, nil)
		ok(t, err)
		defer conn.CloseNow()
		all.Go(func() { converse(t, conn, stop, &sent) })
	}
	url := "http://" + g.addr + "/" // of all of them
	users := newClient(t)
	ask := func(user string) (node, pin string) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
		ok(t, err)
		req.Header.Set("X-User", user)
		res, err := (&http.Client{Jar: users.Jar, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Error(err)
			return "", ""
		}
		defer res.Body.Close()
		io.Copy(io.Discard, res.Body)
		return res.Header.Get("Node"), res.Header.Get("Limpet-Pin")
	}
	home, _ := ask("u")
	for range 4 {
		all.Go(func() { // plain requests, some on kept connections
			tr := &http.Transport{MaxIdleConnsPerHost: 2}
			defer tr.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				res, err := (&http.Client{Transport: tr}).Get(url)
				if err != nil {
					t.Errorf("a plain request: %v", err)
					return
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				asked.Add(1)
			}
		})
	}
	for i := range 5 {
		before, was := g, sent.Load()
		eventually(t, "messages", func() bool { return sent.Load() > was+100 })
		g = generationOf(t, path, nodes, nil)
		if g.addr != before.addr {
			t.Fatalf("it listens at %s", g.addr)
		}
		g.follows(t, before)
		before.returned(t)
		eventually(t, "the tunnels", func() bool {
			n := 0
			for range g.gateway.Tunnels() {
				n++
			}
			return n == 20
		})
		c, d := g.pool.Get("c").Wish(), g.pool.Get("d").Wish()
		if first := before.pool.Get("c").Wish(); !c.Equal(first) || c.State != balancer.Draining || d.Weight != 7 || d.State != balancer.Down {
			t.Errorf("hand-over %d: wishes are %+v and %+v, were %+v", i, c, d, first)
		}
		if at, pin := ask("u"); at != home || pin != "hit" {
			t.Errorf("hand-over %d: a client of %s came to %s (%s)", i, home, at, pin)
		}
		if at, err := g.lru.Load(t.Context(), "u"); err != nil || at != home {
			t.Errorf("hand-over %d: the store has %q, %v", i, at, err)
		}
		if n := g.pool.Get("a").InFlight() + g.pool.Get("b").InFlight(); n < 20 {
			t.Errorf("hand-over %d: %d tunnels count", i, n)
		}
	}
	close(stop)
	all.Wait()
	if asked.Load() == 0 {
		t.Error("no plain request was made")
	}
	g.stop()
	g.returned(t)
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// A successor that ends before it is ready leaves everything as it was, and the next one gets
// it.
func TestTakeoverFails(t *testing.T) {
	t.Parallel()
	nodes := map[string]*node{"a": newNode(t, "a", echo)}
	path := filepath.Join(t.TempDir(), "takeover")
	g := generationOf(t, path, nodes, nil)
	conn, _, err := websocket.Dial(t.Context(), "ws://"+g.addr, nil)
	ok(t, err)
	defer conn.CloseNow()
	h, err := limpet.Takeover(t.Context(), path)
	ok(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Take(ctx); err == nil || !strings.Contains(err.Error(), "NewGateway") {
		t.Errorf("Take without a gateway: %v", err)
	}
	gw, err := limpet.NewGateway(poolOf(t, &balancer.Options{Logger: slog.New(slog.DiscardHandler)}, nodes), &limpet.Options{Handover: h, Logger: slog.New(slog.DiscardHandler)})
	ok(t, err)
	shutDown(t, gw)
	if _, err := limpet.NewGateway(poolOf(t, &balancer.Options{Logger: slog.New(slog.DiscardHandler)}, nodes), &limpet.Options{Handover: h, Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "another gateway") {
		t.Errorf("a second gateway: %v", err)
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	var sent atomic.Int64
	all.Go(func() { converse(t, conn, stop, &sent) })
	ok(t, gw.Shutdown(t.Context()))
	if err := h.Take(t.Context()); err == nil || !strings.Contains(err.Error(), "shut down") {
		t.Errorf("Take after Shutdown: %v", err)
	}
	generationOf(t, path, nodes, nil).follows(t, g)
	close(stop)
	all.Wait()
}

// What is still under way stays, and is answered; a tunnel that is opened on a connection that
// stays follows the others.
func TestTakeoverRest(t *testing.T) {
	t.Parallel()
	let, asked := make(chan struct{}), make(chan struct{}, 10)
	nodes := map[string]*node{"a": newNode(t, "a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			asked <- struct{}{}
			<-let
		}
		if r.Header.Get("Upgrade") != "" {
			echo.ServeHTTP(w, r)
			return
		}
		io.WriteString(w, "whole")
	}))}
	path := filepath.Join(t.TempDir(), "takeover")
	first := generationOf(t, path, nodes, nil)
	fetch := func(path string) (*http.Response, error) { return http.Get("http://" + first.addr + path) }
	answers := make(chan error, 1)
	go func() {
		res, err := fetch("/slow")
		if err == nil {
			var b []byte
			if b, err = io.ReadAll(res.Body); string(b) != "whole" {
				err = fmt.Errorf("the answer is %q, %w", b, err)
			}
			res.Body.Close()
		}
		answers <- err
	}()
	opened := make(chan *websocket.Conn, 1)
	go func() {
		conn, _, err := websocket.Dial(t.Context(), "ws://"+first.addr+"/slow", nil)
		if err != nil {
			t.Error(err)
		}
		opened <- conn
	}()
	<-asked
	<-asked
	second := generationOf(t, path, nodes, nil)
	second.follows(t, first)
	res, err := fetch("/")
	ok(t, err)
	res.Body.Close()
	close(let)
	ok(t, <-answers)
	conn := <-opened
	if conn == nil {
		return
	}
	defer conn.CloseNow()
	stop := make(chan struct{})
	var sent atomic.Int64
	go func() {
		eventually(t, "messages", func() bool { return sent.Load() > 100 })
		eventually(t, "the tunnel to follow", func() bool {
			for range second.gateway.Tunnels() {
				return true
			}
			return false
		})
		close(stop)
	}()
	converse(t, conn, stop, &sent)
	first.returned(t)
}

// A client whose first request is answered by the predecessor is known to the successor while
// the predecessor still serves others.
func TestTakeoverLatePins(t *testing.T) {
	t.Parallel()
	nodes := map[string]*node{"a": newNode(t, "a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	}))}
	path := filepath.Join(t.TempDir(), "takeover")
	first := generationOf(t, path, nodes, nil)
	client := newClient(t)
	ask := func(path, user string) io.Closer {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+first.addr+path, nil)
		ok(t, err)
		req.Header.Set("X-User", user)
		res, err := client.Do(req)
		ok(t, err)
		return res.Body
	}
	stream := ask("/stream", "stream")
	defer stream.Close()
	ask("/", "early").Close() // its connection stays
	second := generationOf(t, path, nodes, nil)
	second.follows(t, first)
	client.Jar = nil
	ask("/", "late").Close()
	eventually(t, "the pin to come", func() bool {
		backend, err := second.lru.Load(t.Context(), "late")
		return err == nil && backend == "a"
	})
	select {
	case <-first.ended:
		t.Error("the predecessor has ended")
	default:
	}
}

// A predecessor that is told to end, too, doesn't wait longer than for a drain for a request that
// doesn't end.
func TestTakeoverToldToEnd(t *testing.T) {
	t.Parallel()
	nodes := map[string]*node{"a": newNode(t, "a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))}
	path := filepath.Join(t.TempDir(), "takeover")
	first := generationOf(t, path, nodes, nil)
	res, err := http.Get("http://" + first.addr)
	ok(t, err)
	defer res.Body.Close()
	second := generationOf(t, path, nodes, nil)
	second.follows(t, first)
	first.stop()
	first.returned(t)
}

// A tunnel whose backend the new process doesn't have is led elsewhere.
func TestTakeoverWithoutBackend(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "takeover")
	first := generationOf(t, path, map[string]*node{"a": newNode(t, "a", echo)}, nil)
	conn, _, err := websocket.Dial(t.Context(), "ws://"+first.addr, nil)
	ok(t, err)
	defer conn.CloseNow()
	second := generationOf(t, path, map[string]*node{"a": newNode(t, "other", nil)}, func(h *limpet.Handover) { h.SetAbsent(10*time.Millisecond, 20*time.Millisecond) })
	second.follows(t, first)
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the tunnel ended with %v", err)
	}
}

// A tunnel that can't move is closed with 1012 by the process that has it.
func TestTakeoverStuck(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "takeover")
	nodes := map[string]*node{"a": newNode(t, "a", echo)}
	h, err := limpet.Takeover(t.Context(), path)
	ok(t, err)
	l, err := h.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	gw, err := limpet.NewGateway(poolOf(t, &balancer.Options{Logger: slog.New(slog.DiscardHandler)}, nodes), &limpet.Options{Handover: h, Logger: slog.New(slog.DiscardHandler), Upgrade: &upgrade.Proxy{NoEventLoop: true}})
	ok(t, err)
	ended := make(chan error, 1)
	go func() { ended <- gw.Serve(t.Context(), &http.Server{Handler: gw}, l, 2*time.Second) }()
	conn, _, err := websocket.Dial(t.Context(), "ws://"+l.Addr().String(), nil)
	ok(t, err)
	defer conn.CloseNow()
	generationOf(t, path, nodes, nil)
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the tunnel ended with %v", err)
	}
	ok(t, <-ended)
}

// Those who connect to the socket and say nothing don't keep a successor from it.
func TestTakeoverMute(t *testing.T) {
	t.Parallel()
	nodes := map[string]*node{"a": newNode(t, "a", nil)}
	path := filepath.Join(t.TempDir(), "takeover")
	first := generationOf(t, path, nodes, nil)
	for range 2 {
		mute, err := net.Dial("unix", path)
		ok(t, err)
		defer mute.Close()
	}
	generationOf(t, path, nodes, nil).follows(t, first)
}

// A predecessor that doesn't answer is an error that says so, and the wait for it ends with the
// context.
func TestTakeoverNoAnswer(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "takeover")
	l, err := net.Listen("unix", path)
	ok(t, err)
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if conn, err := l.Accept(); err == nil {
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 1)) // it has asked
			cancel()
			<-t.Context().Done()
		}
	}()
	_, err = limpet.Takeover(ctx, path)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "doesn't answer") {
		t.Error(err)
	}
}

// A listener that can't be handed over is refused at once, as is a path that can't be.
func TestTakeoverMistakes(t *testing.T) {
	t.Parallel()
	h, err := limpet.Takeover(t.Context(), filepath.Join(t.TempDir(), "takeover"))
	ok(t, err)
	l, err := h.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	defer l.Close()
	if _, err := h.ListenBy("tcp", "x", func() (net.Listener, error) { return struct{ net.Listener }{l}, nil }); err == nil || !strings.Contains(err.Error(), "TCPListener") {
		t.Errorf("a wrapped listener: %v", err)
	}
	if _, err := h.Listen("tcp", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a listener twice: %v", err)
	}
	if _, err := limpet.Takeover(t.Context(), filepath.Join(t.TempDir(), "missing", "takeover")); err == nil {
		t.Error("a folder that isn't there is no error")
	}
}
