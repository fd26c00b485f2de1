package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// start runs the quickstart and returns the URL that it prints.
func start(t *testing.T, guests int) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, "127.0.0.1:0", guests, w)
		w.Close()
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	out := bufio.NewReader(r)
	printed, err := out.ReadString('\n')
	if err != nil {
		t.Fatalf("it printed %q: %v", printed, err)
	}
	go io.Copy(io.Discard, out) // ends with run
	_, url, _ := strings.Cut(printed, "http://")
	url, _, _ = strings.Cut(url, " ")
	return "http://" + url
}

// visitor is a client with a cookie jar.
type visitor struct {
	t    *testing.T
	url  string
	http *http.Client
	seen int64
}

func newVisitor(t *testing.T, url string) *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &visitor{t: t, url: url, http: &http.Client{Jar: jar, Transport: transport, Timeout: 20 * time.Second}}
}

// socket is one connection of a visitor.
type socket struct {
	*visitor
	conn *websocket.Conn
	home string
}

func (v *visitor) connect() *socket {
	v.t.Helper()
	// The client's own time limit would end the socket with it.
	client := &http.Client{Jar: v.http.Jar, Transport: v.http.Transport}
	conn, _, err := websocket.Dial(v.t.Context(), fmt.Sprintf("%s/chat?after=%d", v.url, v.seen), &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		v.t.Fatalf("connect: %v", err)
	}
	v.t.Cleanup(func() { conn.CloseNow() })
	var h hello
	if err := wsjson.Read(v.t.Context(), conn, &h); err != nil || h.Type != "hello" {
		v.t.Fatalf("first message: %+v, %v", h, err)
	}
	return &socket{visitor: v, conn: conn, home: h.Backend}
}

func (s *socket) say(text string) {
	s.t.Helper()
	if err := wsjson.Write(s.t.Context(), s.conn, map[string]string{"from": "Visitor", "text": text}); err != nil {
		s.t.Fatalf("say: %v", err)
	}
}

// hear reads lines until it finds one that contains text.
func (s *socket) hear(text string) line {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	for {
		var l line
		if err := wsjson.Read(ctx, s.conn, &l); err != nil {
			s.t.Fatalf("waiting for %q on %s: %v", text, s.home, err)
		}
		s.seen = l.Seq
		if strings.Contains(l.Text, text) {
			return l
		}
	}
}

// ends waits for the end of the socket and returns its close code.
func (s *socket) ends() websocket.StatusCode {
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	for {
		if _, _, err := s.conn.Read(ctx); err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

// press does what a button of the page does.
func (v *visitor) press(id, verb string) {
	v.t.Helper()
	res, err := v.http.Post(v.url+"/demo/backends/"+id+"/"+verb, "", nil)
	if err != nil {
		v.t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		v.t.Fatalf("%s %s: %s", verb, id, res.Status)
	}
}

// status is what the demo says about a backend.
func (v *visitor) status(id string) backendStatus {
	v.t.Helper()
	res, err := v.http.Get(v.url + "/demo/pool")
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	var all struct{ Backends []backendStatus }
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
		v.t.Fatal(err)
	}
	for _, b := range all.Backends {
		if b.ID == id {
			return b
		}
	}
	v.t.Fatalf("no backend %s in %+v", id, all)
	return backendStatus{}
}

// until waits for a backend's state.
func (v *visitor) until(id, state string) {
	v.t.Helper()
	deadline := time.After(20 * time.Second)
	for v.status(id).State != state {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			v.t.Fatalf("%s is not %s", id, state)
		}
	}
}

// others connects visitors without a past until there is one on each backend but home.
func others(t *testing.T, url, home string) []*socket {
	t.Helper()
	found := map[string]*socket{}
	for range 20 {
		s := newVisitor(t, url).connect()
		if s.home != home {
			found[s.home] = s
		}
		if len(found) == 2 {
			var all []*socket
			for _, s := range found {
				all = append(all, s)
			}
			return all
		}
	}
	t.Fatal("20 new visitors came to fewer than 3 backends")
	return nil
}

func TestPage(t *testing.T) {
	t.Parallel()
	v := newVisitor(t, start(t, 0))
	for path, want := range map[string]string{
		"/": "<!doctype html>", "/app.js": "WebSocket", "/style.css": "prefers-color-scheme", "/limpet.svg": "<svg",
	} {
		res, err := v.http.Get(v.url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(want)) {
			t.Errorf("GET %s: %s, %v; want 200 with %q", path, res.Status, err, want)
		}
		if csp := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") {
			t.Errorf("GET %s: policy %q", path, csp)
		}
	}
}

func TestStaysWhereItsCookieSays(t *testing.T) {
	t.Parallel()
	v := newVisitor(t, start(t, 0))
	first := v.connect()
	others(t, v.url, first.home) // the picker's turn is elsewhere now
	for range 5 {
		if s := v.connect(); s.home != first.home {
			t.Fatalf("came back to %s, was on %s", s.home, first.home)
		}
	}
}

func TestMovesWhenItsBackendIsKilled(t *testing.T) {
	t.Parallel()
	v := newVisitor(t, start(t, 0))
	before := v.connect()
	v.press(before.home, "kill")
	if code := before.ends(); code != websocket.StatusServiceRestart {
		t.Errorf("close code %d, want 1012", code)
	}
	after := v.connect()
	if after.home == before.home {
		t.Fatalf("is on %s again, which is dead", after.home)
	}
	v.press(before.home, "revive")
	if s := v.connect(); s.home != after.home {
		t.Errorf("left %s for %s, though its home had not changed", after.home, s.home)
	}
	v.until(before.home, "up")
	others(t, v.url, after.home) // the revived one among them
}

func TestAllKilled(t *testing.T) {
	t.Parallel()
	v := newVisitor(t, start(t, 0))
	first := v.connect()
	sockets := append(others(t, v.url, first.home), first)
	for _, s := range sockets {
		v.press(s.home, "kill")
		// Health alone would not cut the tunnels of the second and the third: the backend itself has.
		if code := s.ends(); code != websocket.StatusServiceRestart {
			t.Errorf("%s: close code %d, want 1012", s.home, code)
		}
	}
	res, err := v.http.Get(v.url + "/chat")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without any backend: %s, want 503", res.Status)
	}
	v.press(first.home, "revive")
	v.until(first.home, "up")
	for _, s := range sockets {
		if s := s.connect(); s.home != first.home {
			t.Errorf("on %s, but only %s is alive", s.home, first.home)
		}
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	v := newVisitor(t, start(t, 0))
	v.connect().conn.CloseNow() // for a cookie: it has the key that sets a client's moment
	before := v.connect()
	v.press(before.home, "drain")
	for range 4 {
		if s := newVisitor(t, v.url).connect(); s.home == before.home {
			t.Errorf("a newcomer came to %s, which is draining", s.home)
		}
	}
	if code := before.ends(); code != websocket.StatusServiceRestart {
		t.Errorf("close code %d, want 1012", code)
	}
	if after := v.connect(); after.home == before.home {
		t.Errorf("came back to %s, which it was told to leave", after.home)
	}
}

func TestChatCrossesBackends(t *testing.T) {
	t.Parallel()
	url := start(t, 0)
	a := newVisitor(t, url).connect()
	rest := others(t, url, a.home)
	a.say("  to all  ")
	want := line{Type: "line", Seq: 1, From: "Visitor", Backend: a.home, Text: "to all"}
	for _, s := range append(rest, a) {
		got := s.hear("to all")
		if want.Hue = got.Hue; got != want {
			t.Errorf("on %s: %+v, want %+v", s.home, got, want)
		}
	}

	// What is said while it is away waits for it.
	away := rest[0]
	away.conn.CloseNow()
	a.say("meanwhile")
	a.hear("meanwhile")
	if got := away.connect().hear(""); got.Text != "meanwhile" {
		t.Errorf("the first line after coming back is %q", got.Text)
	}
}

func TestGuestsMove(t *testing.T) {
	t.Parallel()
	v := newVisitor(t, start(t, 3))
	here := v.connect()
	l := here.hear("Hello from")
	v.press(l.Backend, "kill")
	if l.Backend == here.home {
		here = v.connect()
	}
	if moved := here.hear("I was on " + l.Backend); moved.Backend == l.Backend {
		t.Errorf("%s says %q on %s", moved.From, moved.Text, moved.Backend)
	}
}

func TestPoolStatus(t *testing.T) {
	t.Parallel()
	v := newVisitor(t, start(t, 0))
	s := v.connect()
	v.press(s.home, "drain")
	for _, id := range []string{"coral", "ocean", "moss"} {
		b := v.status(id)
		switch {
		case !b.Alive,
			id == s.home && (b.State != "draining" || !b.Drained || b.Clients != 1),
			id != s.home && (b.State != "up" || b.Drained || b.Clients != 0):
			t.Errorf("%+v, and the one client is on %s, which drains", b, s.home)
		}
	}
	v.press(s.home, "undrain")
	if b := v.status(s.home); b.State != "up" || b.Drained {
		t.Errorf("%+v after the drain", b)
	}
}

func TestButtonsAreForThisPageOnly(t *testing.T) {
	t.Parallel()
	v := newVisitor(t, start(t, 0))
	req, err := http.NewRequestWithContext(t.Context(), "POST", v.url+"/demo/backends/coral/kill", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "https://elsewhere.example")
	res, err := v.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("%s, want 403", res.Status)
	}
}

func TestAddressTaken(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	err = run(t.Context(), ln.Addr().String(), 0, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "-listen") {
		t.Errorf("%v, want advice to use -listen", err)
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	var h history
	for range backlog + 3 {
		h.add(line{Text: "x"})
	}
	for _, tt := range []struct{ after, first, n int64 }{
		{0, 4, backlog},
		{backlog, backlog + 1, 3},
		{backlog + 3, 0, 0},
		{1000, 4, backlog}, // of another run
	} {
		got := h.after(tt.after)
		if int64(len(got)) != tt.n || tt.n > 0 && got[0].Seq != tt.first {
			t.Errorf("after %d: %d lines, %+v; want %d from %d on", tt.after, len(got), got, tt.n, tt.first)
		}
	}
}
