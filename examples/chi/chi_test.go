package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// backend answers plain requests with its name, the path and the request ID, and each WebSocket message with its name.
func backend(t *testing.T, id string) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/live/ws" {
			fmt.Fprint(w, id, " ", r.URL.Path, " ", r.Header.Get(middleware.RequestIDHeader))
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			if _, _, err := c.Read(t.Context()); err != nil {
				return
			}
			if err := c.Write(t.Context(), websocket.MessageText, []byte(id)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	return id + "=" + srv.URL
}

func TestService(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, ln, balancer.Static(backend(t, "a"), backend(t, "b"))) }()
	stop := func() error {
		cancel()
		err := <-ended
		ended <- nil // for whoever asks again
		return err
	}
	t.Cleanup(func() { stop() })

	base := "http://" + ln.Addr().String()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Jar: jar, Transport: transport}
	get := func(path string) string {
		t.Helper()
		res, err := client.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("GET %s: %s, %v", path, res.Status, err)
		}
		return string(body)
	}

	if page := get("/"); !strings.Contains(page, "<h1>") {
		t.Errorf("the page is %q", page)
	}
	if api := get("/api/backends"); api != `{"a":"up","b":"up"}`+"\n" {
		t.Errorf("the API answers %q", api)
	}
	at, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	if cookies := jar.Cookies(at); len(cookies) != 0 {
		t.Errorf("cookies %v, before a backend was asked for anything", cookies)
	}

	answer := strings.Fields(get("/live/poll"))
	if len(answer) != 3 || answer[1] != "/live/poll" {
		t.Fatalf("the backend got %q; want its ID, the whole path and a request ID", answer)
	}
	home := answer[0]
	conn, _, err := websocket.Dial(t.Context(), base+"/live/ws", &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	for range 3 {
		if err := conn.Write(t.Context(), websocket.MessageText, []byte("who?")); err != nil {
			t.Fatal(err)
		}
		if _, data, err := conn.Read(t.Context()); err != nil || string(data) != home {
			t.Fatalf("the socket is on %q, %v; want %s", data, err, home)
		}
		if got := get("/live/poll"); !strings.HasPrefix(got, home+" ") {
			t.Fatalf("a request went to %q, want %s", got, home)
		}
	}

	closed := make(chan error, 1)
	go func() {
		_, _, err := conn.Read(context.Background())
		closed <- err
	}()
	if err := stop(); err != nil {
		t.Errorf("serve: %v", err)
	}
	if err := <-closed; websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the socket ended with %v, want close code 1012", err)
	}
}
