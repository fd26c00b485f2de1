// Package exampletest drives the gateways in examples/ as their clients would.
package exampletest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"testing"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/upgrade"
)

// Backend is a server that says who it is: in the field Backend of each answer,
// and on a WebSocket in answer to each message.
type Backend struct {
	*httptest.Server
	ID string
}

// StartBackend starts one for the time of the test. Plain requests go on to
// handle, unless that is nil.
func StartBackend(t testing.TB, id string, handle http.HandlerFunc) *Backend {
	t.Helper()
	b := &Backend{ID: id, Server: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Backend", id)
		if upgrade.Is(r) {
			tell(w, r, id)
		} else if handle != nil {
			handle(w, r)
		}
	}))}
	t.Cleanup(b.Close)
	return b
}

func tell(w http.ResponseWriter, r *http.Request, id string) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	for ctx := context.Background(); ; { // the request's has ended with the hijacking
		if _, _, err := conn.Read(ctx); err != nil {
			return
		}
		if err := conn.Write(ctx, websocket.MessageText, []byte(id)); err != nil {
			return
		}
	}
}

// Spec is the backend as balancer.ParseBackend takes it.
func (b *Backend) Spec() string { return b.ID + "=" + b.URL }

// Kill ends the backend at once. Its WebSockets stay.
func (b *Backend) Kill() {
	b.CloseClientConnections()
	b.Close()
}

// Gateway is an example that serves.
type Gateway struct {
	Addr string
	stop func() error
}

// Serve runs an example until the end of the test. Its error fails the test.
func Serve(t testing.TB, serve func(context.Context, net.Listener) error) *Gateway {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // t.Context() ends before Cleanup
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, ln) }()
	g := &Gateway{Addr: ln.Addr().String(), stop: func() error {
		cancel()
		err := <-ended
		ended <- nil // for whoever asks again
		return err
	}}
	t.Cleanup(func() {
		if err := g.stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return g
}

// Drain ends the gateway as SIGTERM does, and fails the test if that doesn't
// close a client's WebSocket with code 1012.
func (g *Gateway) Drain(t testing.TB) {
	t.Helper()
	conn := NewClient(t, g).Dial(t, "/socket.io/")
	closed := make(chan error, 1)
	go func() {
		_, _, err := conn.Read(context.Background())
		closed <- err
	}()
	if err := g.stop(); err != nil {
		t.Errorf("serve: %v", err)
	}
	if err := <-closed; websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the WebSocket ended with %v, want close code 1012", err)
	}
}

// Site is what clients take the gateway for, whatever its address.
const Site = "http://www.example.com"

// Client is a browser, as far as cookies go.
type Client struct{ *http.Client }

// NewClient returns a new client of the gateway.
func NewClient(t testing.TB, g *Gateway) *Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, g.Addr)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &Client{&http.Client{Jar: jar, Transport: transport}}
}

// Answer is an answer, its body read.
type Answer struct {
	*http.Response
	Backend string
	Body    string
}

// Get gets a path of the site, with header fields as pairs of name and value.
// Any status but 200 fails the test.
func (c *Client) Get(t testing.TB, path string, fields ...string) Answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", Site+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %q, %v", path, res.Status, body, err)
	}
	return Answer{res, res.Header.Get("Backend"), string(body)}
}

// Stays gets a path three times and asks a WebSocket there, and fails the test
// if any of them isn't answered by the backend called home.
func (c *Client) Stays(t testing.TB, home, path string) {
	t.Helper()
	for range 3 {
		if got := c.Get(t, path).Backend; got != home {
			t.Fatalf("GET %s: answered by %q, home is %q", path, got, home)
		}
	}
	conn := c.Dial(t, path)
	if err := conn.Write(t.Context(), websocket.MessageText, []byte("who?")); err != nil {
		t.Fatal(err)
	}
	if _, data, err := conn.Read(t.Context()); err != nil || string(data) != home {
		t.Fatalf("the WebSocket is at %q, %v; home is %q", data, err, home)
	}
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Fatal(err)
	}
}

// Dial opens a WebSocket for the time of the test.
func (c *Client) Dial(t testing.TB, path string) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), Site+path, &websocket.DialOptions{HTTPClient: c.Client})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return conn
}

// Cookie returns the value of the client's cookie for the root of the site, ""
// without one.
func (c *Client) Cookie(t testing.TB, name string) string {
	t.Helper()
	req, err := http.NewRequest("GET", Site+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, cookie := range c.Jar.Cookies(req.URL) {
		if cookie.Name == name {
			return cookie.Value
		}
	}
	return ""
}

// Echo is a handler for StartBackend: its answer is the request's Cookie field.
func Echo(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("Cookie")) }
