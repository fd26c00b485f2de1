package hub_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/bus/hub"
)

// countingListener is a listener whose connections count what is read of them. They have the methods
// of the sockets within them, as connections of other packages may.
type countingListener struct {
	net.Listener
	read *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{c.(*net.TCPConn), l.read}, nil
}

type countedConn struct {
	*net.TCPConn
	read *atomic.Int64
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// What a connection does with its bytes isn't gone round.
func TestHandlerConnOfOthers(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	s := httptest.NewUnstartedServer(startHub(t, nil, nil).Handler(&hub.HandlerOptions{
		Message: func(_ context.Context, m *hub.Member, f *hub.Frame) { m.Send(f) },
	}))
	s.Listener = countingListener{s.Listener, &n}
	s.Start()
	t.Cleanup(s.Close)
	c, in := rawClient(t, s, nil)
	before := n.Load()
	sent := slices.Concat(masked(text, "Hello"), masked(closing, ""))
	_, _ = c.Write(sent)
	if got := received(t, in); !slices.Equal(got, []string{"81 Hello", "88 "}) {
		t.Errorf("got %q", got)
	}
	if got := n.Load() - before; got != int64(len(sent)) {
		t.Errorf("%d of %d bytes were read through the connection", got, len(sent))
	}
}

// A callback that waits for its context doesn't wait forever when the client is silent.
func TestHandlerPingEndsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil, nil)
		l := make(pipes)
		ended := make(chan struct{})
		server := &http.Server{Handler: h.Handler(&hub.HandlerOptions{
			Opened: func(ctx context.Context, m *hub.Member, _ *http.Request) { m.Send(hub.Text(nil)) },
			Message: func(ctx context.Context, _ *hub.Member, _ *hub.Frame) {
				<-ctx.Done()
				close(ended)
			},
		})}
		go server.Serve(l)
		defer server.Close()
		c := l.client(t, false)
		defer c.CloseNow()
		read(t, c)
		if err := c.Write(t.Context(), websocket.MessageText, nil); err != nil {
			t.Fatal(err)
		}
		c.CloseRead(t.Context())
		<-ended
	})
}

// sticky is a connection whose Close waits, as that of TLS does if the client takes nothing.
type sticky struct {
	net.Conn
	closing chan struct{}
}

func (c sticky) Close() error {
	<-c.closing
	return c.Conn.Close()
}

// A client that is silent and can't be closed delays the pings of nobody else.
func TestHandlerPingOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := servePipes(t, startHub(t, nil, nil))
		silent, server := net.Pipe()
		stuck := sticky{server, make(chan struct{})}
		l <- stuck
		go io.WriteString(silent, handshake)
		go io.Copy(io.Discard, silent)
		var pings atomic.Int64
		c, _, err := websocket.Dial(t.Context(), "http://hub", &websocket.DialOptions{
			HTTPClient:     &http.Client{Transport: &http.Transport{DialContext: l.dial}},
			OnPingReceived: func(context.Context, []byte) bool { pings.Add(1); return true },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		read(t, c)
		c.CloseRead(t.Context())
		time.Sleep(time.Hour)
		close(stuck.closing)
		silent.Close()
		if n := pings.Load(); n < 3600/25-1 {
			t.Errorf("%d pings in an hour", n)
		}
	})
}

// The ends of a connection that aren't a close handshake.
func TestHandlerEnds(t *testing.T) {
	t.Parallel()
	h := startHub(t, nil, &hub.Options{WriteTimeout: time.Second})
	ended := make(chan string, 1)
	s := serveHub(t, h, &hub.HandlerOptions{
		Opened: func(_ context.Context, m *hub.Member, r *http.Request) {
			if r.URL.Path == "/opened" {
				m.Close(4000, "")
			}
		},
		Message: func(_ context.Context, m *hub.Member, f *hub.Frame) {
			if m.Send(f); string(f.Payload()) == "close" {
				m.Close(4000, "enough")
			}
		},
		Closed: func(m *hub.Member) {
			m.Close(4001, "it is too late for that")
			m.Send(hub.Text([]byte("likewise")))
			ended <- m.ID()
		},
	})
	for _, tt := range []struct {
		name string
		sent []byte
		then func(c *net.TCPConn)
		want []string // nil if it isn't looked at
	}{
		{"half of it, between messages", masked(text, "x"), func(c *net.TCPConn) { c.CloseWrite() }, []string{"81 x", "88 1000"}},
		{"half of it, within a frame", masked(text, "xyz")[:7], func(c *net.TCPConn) { c.CloseWrite() }, []string{"88 1000"}},
		{"half of it, within a message", masked(text&^part, "x"), func(c *net.TCPConn) { c.CloseWrite() }, []string{"88 1000"}},
		{"a reset, between messages", nil, func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, nil},
		{"a reset, within a frame", masked(text, "xyz")[:7], func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, nil},
		{"a close frame that isn't answered", masked(text, "close"), func(c *net.TCPConn) {}, []string{"81 close", "88 4000"}},
		{"a close frame that is answered by others", slices.Concat(masked(text, "close"), masked(ping, ""), masked(text, "x")), func(c *net.TCPConn) {}, []string{"81 close", "88 4000"}},
		{"within a frame when the close frame comes", slices.Concat(masked(text, "close"), masked(text, "xyz")[:7]), func(c *net.TCPConn) {}, []string{"81 close", "88 4000"}},
	} {
		c, in := rawClient(t, s, tt.sent[:len(tt.sent)/2])
		_, _ = c.Write(tt.sent[len(tt.sent)/2:])
		tt.then(c.(*net.TCPConn))
		if tt.want != nil {
			if got := received(t, in); !slices.Equal(got, tt.want) {
				t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
			}
		}
		<-ended
	}
	c := dial(t, s, "/opened", nil)
	if code, _ := ends(t, c); code != 4000 {
		t.Errorf("a close in Opened: %d", code)
	}
	<-ended
	for h.Stats().Members > 0 {
		runtime.Gosched()
	}
}

// A client that sends pings and takes no pongs is cut. It is read from until then, and what
// waits for it is one pong.
func TestHandlerPingFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil, nil)
		l := make(pipes)
		ended := make(chan struct{})
		server := &http.Server{Handler: h.Handler(&hub.HandlerOptions{Closed: func(*hub.Member) { close(ended) }})}
		go server.Serve(l)
		defer server.Close()
		c, _ := l.dial(t.Context(), "", "")
		defer c.Close()
		go io.WriteString(c, handshake)
		if _, err := http.ReadResponse(bufio.NewReaderSize(c, 1), nil); err != nil {
			t.Fatal(err)
		}
		for i := range 10_000 {
			if _, err := c.Write(masked(ping, fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		<-ended
	})
}

// Clients come and go in all ways while others send to them.
func TestHandlerStorm(t *testing.T) {
	t.Parallel()
	h := startHub(t, nil, &hub.Options{Logger: slog.New(slog.DiscardHandler), WriteTimeout: time.Second})
	var opened, closed atomic.Int64
	s := serveHub(t, h, &hub.HandlerOptions{
		Ping: 5 * time.Millisecond,
		Opened: func(ctx context.Context, m *hub.Member, _ *http.Request) {
			opened.Add(1)
			_ = m.Join(ctx, "room")
		},
		Message: func(_ context.Context, m *hub.Member, f *hub.Frame) {
			switch m.Send(f); {
			case rand.N(20) == 0:
				panic("now and then")
			case rand.N(20) == 0:
				m.Close(4000, "")
			}
		},
		Closed: func(*hub.Member) { closed.Add(1) },
	})
	stop := make(chan struct{})
	var sending, coming sync.WaitGroup
	sending.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				send(t, h, inRooms("room"), fmt.Sprint(i))
				runtime.Gosched()
			}
		}
	})
	for range 8 {
		coming.Go(func() {
			for range 40 {
				storm(t, s)
			}
		})
	}
	coming.Wait()
	close(stop)
	sending.Wait()
	for h.Stats().Members > 0 || closed.Load() < opened.Load() {
		runtime.Gosched()
	}
	if opened.Load() != 8*40 || closed.Load() != opened.Load() {
		t.Errorf("%d were opened and %d closed", opened.Load(), closed.Load())
	}
}

// storm is one client of TestHandlerStorm.
func storm(t *testing.T, s *httptest.Server) {
	c, in := rawClient(t, s, masked(text, "first"))
	defer c.Close()
	reading := make(chan struct{})
	go func() { // ends with c
		defer close(reading)
		_, _ = io.Copy(io.Discard, in)
	}()
	for range rand.N(20) {
		f := [][]byte{masked(text, "Hello"), masked(ping, "x"), masked(bin, string(make([]byte, 9000))),
			slices.Concat(chopped(text, "some pieces", 2)...)}[rand.N(4)]
		_, _ = c.Write(f)
	}
	switch rand.N(5) {
	case 0:
		_, _ = c.Write(masked(closing, closeOf(1000, "")))
		<-reading
	case 1:
		_ = c.(*net.TCPConn).SetLinger(0)
	case 2:
		_, _ = c.Write([]byte{text, 0x80 | 100, 1, 2, 3, 4, 5})
	case 3:
		_, _ = c.Write([]byte{0xff, 0xff})
		<-reading
	}
	c.Close()
	<-reading
}
