package hub_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// serveHub serves a hub's handler on loopback.
func serveHub(t testing.TB, h *hub.Hub, opts *hub.HandlerOptions) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h.Handler(opts))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // panics
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// dial opens a WebSocket for the time of the test.
func dial(t testing.TB, s *httptest.Server, path string, header http.Header) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(patient(t), s.URL+path, &websocket.DialOptions{HTTPHeader: header, Subprotocols: []string{"b", "a"}})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(-1)
	t.Cleanup(func() { c.CloseNow() })
	return c
}

// greeting tells a client when it has become a member.
var greeting = &hub.HandlerOptions{Opened: func(_ context.Context, m *hub.Member, _ *http.Request) {
	m.Send(hub.Text([]byte("hello")))
}}

// patient bounds what must not take forever.
func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func read(t testing.TB, c *websocket.Conn) string {
	t.Helper()
	kind, data, err := c.Read(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(kind.String(), "Message") + " " + string(data)
}

// ends reads on to the close and returns its code and reason.
func ends(t testing.TB, c *websocket.Conn) (websocket.StatusCode, string) {
	t.Helper()
	for {
		if _, _, err := c.Read(patient(t)); err != nil {
			var closed websocket.CloseError
			errors.As(err, &closed)
			return closed.Code, closed.Reason
		}
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	h := startHub(t, nil, &hub.Options{QueueMessages: 1000, QueueBytes: 10 << 20, Logger: slog.New(slog.DiscardHandler)})
	ended := make(chan string, 10)
	s := serveHub(t, h, &hub.HandlerOptions{
		Member: func(r *http.Request) (hub.MemberOptions, error) {
			id := r.URL.Query().Get("id")
			if id == "" {
				return hub.MemberOptions{}, errors.New("nobody")
			}
			return hub.MemberOptions{ID: id, Rooms: []string{"room"}}, nil
		},
		Opened: func(_ context.Context, m *hub.Member, r *http.Request) {
			m.Send(hub.Text([]byte("hello " + m.ID() + " of " + r.URL.Path)))
		},
		Message: func(ctx context.Context, _ *hub.Member, f *hub.Frame) {
			if string(f.Payload()) == "panic" {
				panic("as it was told")
			}
			if err := h.Send(ctx, inRooms("room"), f); err != nil {
				t.Error(err)
			}
		},
		Closed:       func(m *hub.Member) { ended <- m.ID() },
		Origins:      []string{"*.friends.example"},
		Subprotocols: []string{"a", "b"},
		ReadLimit:    1000,
	})

	for _, tt := range []struct {
		name, origin, path string
		status             int
	}{
		{"no member", "", "/", http.StatusForbidden},
		{"foreign origin", "https://foes.example", "/?id=x", http.StatusForbidden},
		{"friend", "https://my.friends.example", "/?id=x", http.StatusSwitchingProtocols},
		{"same site", s.URL, "/?id=x", http.StatusSwitchingProtocols},
	} {
		c, res, err := websocket.Dial(patient(t), s.URL+tt.path, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {tt.origin}}})
		if res == nil || res.StatusCode != tt.status {
			t.Errorf("%s: %v, %v", tt.name, res, err)
		}
		if err == nil {
			c.CloseNow()
			<-ended
		}
	}

	ann, bob := dial(t, s, "/chat?id=ann", nil), dial(t, s, "/chat?id=bob", nil)
	if ann.Subprotocol() != "a" {
		t.Errorf("subprotocol %q", ann.Subprotocol())
	}
	for id, c := range map[string]*websocket.Conn{"ann": ann, "bob": bob} {
		if got, want := read(t, c), "Text hello "+id+" of /chat"; got != want {
			t.Errorf("%s is greeted with %q, want %q", id, got, want)
		}
	}
	if err := ann.Write(patient(t), websocket.MessageBinary, []byte{0, 255}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*websocket.Conn{ann, bob} {
		if got := read(t, c); got != "Binary \x00\xff" {
			t.Fatalf("got %q", got)
		}
	}
	for range 200 { // more than is written at once, small ones and large ones, in order
		send(t, h, inRooms("room"), strings.Repeat("x", 500))
		send(t, h, inRooms("room"), strings.Repeat("y", 5000))
	}
	for _, c := range []*websocket.Conn{ann, bob} {
		for range 200 {
			if x, y := read(t, c), read(t, c); x != "Text "+strings.Repeat("x", 500) || y != "Text "+strings.Repeat("y", 5000) {
				t.Fatalf("got %.20q and %.20q", x, y)
			}
		}
	}

	if err := h.Disconnect(t.Context(), hub.Who{IDs: []string{"ann"}}, 4001, "enough"); err != nil {
		t.Error(err)
	}
	if code, reason := ends(t, ann); code != 4001 || reason != "enough" {
		t.Errorf("closed with %d, %q", code, reason)
	}
	if id := <-ended; id != "ann" {
		t.Errorf("Closed of %s", id)
	}
	if err := bob.Write(patient(t), websocket.MessageText, bytes.Repeat([]byte("x"), 1001)); err != nil {
		t.Fatal(err)
	}
	if code, _ := ends(t, bob); code != websocket.StatusMessageTooBig {
		t.Errorf("a message that is too big: %d", code)
	}
	<-ended

	eve := dial(t, s, "/?id=eve", nil)
	if err := eve.Write(patient(t), websocket.MessageText, []byte("\xff")); err != nil {
		t.Fatal(err)
	}
	if code, _ := ends(t, eve); code != websocket.StatusInvalidFramePayloadData {
		t.Errorf("text that isn't UTF-8: %d", code)
	}
	<-ended

	cid := dial(t, s, "/?id=cid", nil)
	if err := cid.Write(patient(t), websocket.MessageText, []byte("panic")); err != nil {
		t.Fatal(err)
	}
	if code, _ := ends(t, cid); code != websocket.StatusInternalError {
		t.Errorf("a panic: %d", code)
	}
	if id := <-ended; id != "cid" {
		t.Errorf("Closed of %s", id)
	}
	dora := dial(t, s, "/?id=dora", nil)
	read(t, dora)
	if err := dora.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("the close isn't answered: %v", err)
	}
	if <-ended; h.Stats().Members != 0 {
		t.Errorf("%+v", h.Stats())
	}
}

// A client that is silent is pinged, and stays as long as it answers. One that
// takes nothing is cut after WriteTimeout.
func TestHandlerPing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := startHub(t, nil, nil)
		l := servePipes(t, h)
		start := time.Now()
		alive, dead := l.client(t, true), l.client(t, false)
		read(t, alive)
		alive.CloseRead(t.Context())
		if code, _ := ends(t, dead); code != 0 || time.Since(start) != 50*time.Second {
			t.Errorf("the dead one: close code %d after %v, want none after 50s", code, time.Since(start))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := h.Stats().Members; n != 1 {
			t.Errorf("%d members, want the living one", n)
		}

		stuck := l.client(t, true)
		defer stuck.CloseNow()
		read(t, stuck)
		send(t, h, hub.Who{All: true}, strings.Repeat("x", 10_000)) // more than it has buffers for
		alive.CloseNow()
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if n := h.Stats().Members; n != 0 {
			t.Errorf("%d members, and all are gone or stuck", n)
		}
	})
}

// Pongs go between messages, also on a connection that takes a message in parts.
func TestHandlerControlFrames(t *testing.T) {
	t.Parallel()
	h := startHub(t, nil, nil)
	c := servePipes(t, h).client(t, true)
	defer c.CloseNow()
	read(t, c)
	pinged := make(chan error, 1)
	go func() { // ends with c
		var err error
		for err == nil {
			err = c.Ping(t.Context())
		}
		pinged <- err
	}()
	for i := range 200 {
		send(t, h, hub.Who{All: true}, strings.Repeat("x", i))
		if got := read(t, c); got != "Text "+strings.Repeat("x", i) {
			t.Fatalf("message %d is %q", i, got)
		}
	}
	select {
	case err := <-pinged:
		t.Error(err)
	default:
	}
	c.CloseNow()
}

// servePipes serves a hub in this process, in a synctest bubble if need be.
func servePipes(t *testing.T, h *hub.Hub) pipes {
	l := make(pipes)
	server := &http.Server{Handler: h.Handler(greeting)}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l
}

// client opens a WebSocket that answers pings or doesn't.
func (p pipes) client(t *testing.T, answer bool) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), "http://hub", &websocket.DialOptions{
		HTTPClient:     &http.Client{Transport: &http.Transport{DialContext: p.dial}},
		OnPingReceived: func(context.Context, []byte) bool { return answer },
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pipes is a network without time.
type pipes chan net.Conn

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p <- halves{server}
	return client, nil
}

// halves writes what it is given in two parts.
type halves struct{ net.Conn }

func (h halves) Write(p []byte) (int, error) {
	n, err := h.Conn.Write(p[:len(p)/2])
	if err != nil {
		return n, err
	}
	runtime.Gosched()
	m, err := h.Conn.Write(p[n:])
	return n + m, err
}

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// A client that doesn't read is closed with 1013 as soon as it does, if that is
// within WriteTimeout, and delays nobody.
func TestHandlerSlowClient(t *testing.T) {
	t.Parallel()
	h := startHub(t, nil, &hub.Options{QueueBytes: 1 << 20, WriteTimeout: time.Minute})
	s := serveHub(t, h, greeting)
	slow, quick := dial(t, s, "/", nil), dial(t, s, "/", nil)
	for _, c := range []*websocket.Conn{slow, quick} {
		read(t, c)
	}
	big := strings.Repeat("x", 500_000)
	for h.Stats().Slow == 0 {
		send(t, h, hub.Who{All: true}, big)
		if got := read(t, quick); got != "Text "+big {
			t.Fatalf("the quick one got %.20q", got)
		}
	}
	if code, reason := ends(t, slow); code != websocket.StatusTryAgainLater || reason != "too slow" {
		t.Errorf("closed with %d, %q", code, reason)
	}
}

// A burst of many small messages closes nobody who reads, even if the sender is
// faster than all of them. Who doesn't read is closed once the bound in bytes is
// reached.
func TestHandlerBurst(t *testing.T) {
	t.Parallel()
	const clients, messages = 50, 1000
	h := startHub(t, nil, &hub.Options{WriteTimeout: time.Minute})
	s := serveHub(t, h, greeting)
	stuck := &conn{stuck: make(chan struct{})}
	slow := connectConn(t, h, stuck, "")
	ctx := patient(t)
	var reading sync.WaitGroup
	for range clients {
		c := dial(t, s, "/", nil)
		read(t, c)
		reading.Go(func() {
			for i := range messages {
				if _, data, err := c.Read(ctx); err != nil || len(data) != 100 {
					t.Errorf("message %d: %d bytes, %v", i, len(data), err)
					return
				}
			}
		})
	}
	f := hub.Text(bytes.Repeat([]byte("x"), 100))
	for range messages {
		if err := h.Send(t.Context(), hub.Who{All: true}, f); err != nil {
			t.Fatal(err)
		}
	}
	reading.Wait()
	if got := h.Stats(); got.Slow != 0 || got.Members != clients+1 {
		t.Errorf("%+v", got)
	}
	waiting := 1<<20/100 - messages // what fits into the queue of the one that doesn't read
	for range waiting {
		slow.Send(f)
	}
	if got := h.Stats(); got.Slow != 0 {
		t.Errorf("closed although the queue had room: %+v", got)
	}
	for range 64 + 1 { // as many as are being written, and one more
		slow.Send(f)
	}
	if got := h.Stats(); got.Slow != 1 || got.Members != clients {
		t.Errorf("not closed: %+v", got)
	}
	close(stuck.stuck)
}

// What a client sends behind its end isn't for the application.
func TestHandlerClosedMember(t *testing.T) {
	t.Parallel()
	h := startHub(t, nil, nil)
	var messages atomic.Int32
	ended := make(chan struct{})
	s := serveHub(t, h, &hub.HandlerOptions{
		Message: func(_ context.Context, m *hub.Member, _ *hub.Frame) {
			messages.Add(1)
			m.Close(4000, "enough")
		},
		Closed: func(*hub.Member) { close(ended) },
	})
	c := dial(t, s, "/", nil)
	for range 10 {
		if c.Write(patient(t), websocket.MessageText, []byte("x")) != nil {
			break // it has been closed already
		}
	}
	if code, _ := ends(t, c); code != 4000 {
		t.Errorf("closed with %d", code)
	}
	if <-ended; messages.Load() != 1 {
		t.Errorf("%d messages", messages.Load())
	}
}

// When the hub has ended, clients are told so before and after the upgrade.
func TestHandlerHubEnds(t *testing.T) {
	t.Parallel()
	h := newHub(t, nil, nil)
	stop := runHub(t, h)
	s := serveHub(t, h, nil)
	c := dial(t, s, "/", nil)
	closed := make(chan websocket.StatusCode)
	go func() {
		code, _ := ends(t, c)
		closed <- code
	}()
	stop()
	if code := <-closed; code != websocket.StatusServiceRestart {
		t.Errorf("closed with %d", code)
	}
	if _, res, _ := websocket.Dial(patient(t), s.URL, nil); res == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("then: %v", res)
	}
}

// broken is a bus that can't be subscribed to.
type broken struct{ bus.Memory }

func (*broken) Subscribe(context.Context, ...string) (bus.Subscription, error) {
	return nil, errAway
}

// A hub whose Run has failed refuses clients, and says why once, whatever became
// of Run's error.
func TestHandlerRunFails(t *testing.T) {
	t.Parallel()
	var logged strings.Builder
	h := newHub(t, &broken{}, &hub.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if err := h.Run(t.Context()); !errors.Is(err, errAway) {
		t.Errorf("Run: %v", err)
	}
	for range 3 {
		w := httptest.NewRecorder()
		if h.Handler(nil).ServeHTTP(w, httptest.NewRequest("GET", "/", nil)); w.Code != http.StatusServiceUnavailable {
			t.Errorf("%d", w.Code)
		}
	}
	if got := logged.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=ERROR") || !strings.Contains(got, errAway.Error()) {
		t.Errorf("logged %q, want one line with the cause", got)
	}
	if _, err := h.Connect(t.Context(), &conn{}, hub.MemberOptions{}); !errors.Is(err, hub.ErrClosed) || !errors.Is(err, errAway) {
		t.Errorf("Connect: %v", err)
	}
}

// A ResponseWriter that can't be taken over gets an answer. Over HTTP/1.1 that is the
// mistake of a middleware, which is logged once. HTTP/2's can never be taken over.
func TestHandlerNoHijacker(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		major, logged int
	}{
		"HTTP/1.1": {1, 1},
		"HTTP/2":   {2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var logged strings.Builder
			h := startHub(t, nil, &hub.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
			handler := h.Handler(nil)
			for range 2 {
				r := httptest.NewRequest("GET", "/", nil)
				r.ProtoMajor = tt.major
				w := httptest.NewRecorder()
				if handler.ServeHTTP(w, r); w.Code != http.StatusNotImplemented {
					t.Errorf("%d", w.Code)
				}
			}
			if got := logged.String(); strings.Count(got, "needs an Unwrap method") != tt.logged {
				t.Errorf("logged %q, want %d lines that name the cause", got, tt.logged)
			}
		})
	}
}
