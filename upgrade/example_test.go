package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/limpet-go/limpet/upgrade"
)

// A handler that takes WebSockets to one backend, and its refusals to the client.
func Example() {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("name") == "" {
			http.Error(w, "who are you?", http.StatusForbidden)
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		c.Write(r.Context(), websocket.MessageText, []byte("hello "+r.URL.Query().Get("name")))
		c.Close(websocket.StatusNormalClosure, "")
	}))
	defer backend.Close()

	proxy := &upgrade.Proxy{IdleTimeout: time.Minute}
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if proxy.Protocol(r) == "" || !upgrade.CanHijack(w) {
			http.Error(w, "WebSockets only", http.StatusUpgradeRequired)
			return
		}
		out := r.Clone(r.Context())
		out.URL.Scheme, out.URL.Host = "http", backend.Listener.Addr().String()
		tunnel, err := proxy.Connect(out, upgrade.ConnectOptions{})
		var refused *upgrade.HandshakeError
		switch {
		case errors.As(err, &refused):
			defer refused.Response.Body.Close()
			maps.Copy(w.Header(), refused.Response.Header)
			w.WriteHeader(refused.Response.StatusCode)
			io.Copy(w, refused.Response.Body)
		case err != nil:
			http.Error(w, "no backend", http.StatusBadGateway)
		default:
			tunnel.Serve(w)
		}
	}))
	defer gateway.Close()

	ctx := context.Background()
	url := strings.Replace(gateway.URL, "http", "ws", 1)
	c, _, err := websocket.Dial(ctx, url+"/?name=limpet", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, msg, _ := c.Read(ctx)
	fmt.Println(string(msg))
	_, _, err = c.Read(ctx)
	fmt.Println(websocket.CloseStatus(err))

	_, res, _ := websocket.Dial(ctx, url, nil)
	body, _ := io.ReadAll(res.Body)
	fmt.Print(res.Status, ": ", string(body))

	proxy.Shutdown(ctx)
	// Output:
	// hello limpet
	// StatusNormalClosure
	// 403 Forbidden: who are you?
}

// Before a backend is restarted its clients are sent elsewhere, each at its own
// moment, so that they don't come back in a crowd.
func ExampleProxy_DrainGroup() {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			c.Read(context.Background())
			c.CloseNow()
		}
	}))
	defer backend.Close()

	proxy := &upgrade.Proxy{}
	var turn float64
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Scheme, r.URL.Host = "http", backend.Listener.Addr().String()
		tunnel, err := proxy.Connect(r, upgrade.ConnectOptions{Group: "node1", Turn: turn})
		if err == nil {
			tunnel.Serve(w)
		}
	}))
	defer gateway.Close()

	var clients sync.WaitGroup
	for i := range 3 {
		turn = float64(i) / 3
		c, _, err := websocket.Dial(context.Background(), gateway.URL, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		clients.Go(func() {
			_, _, err := c.Read(context.Background())
			fmt.Println(i, err)
		})
	}
	proxy.DrainGroup("node1", 1012, "moving", 300*time.Millisecond)
	clients.Wait()
	proxy.Shutdown(context.Background())
	// Output:
	// 0 failed to get reader: received close frame: status = StatusServiceRestart and reason = "moving"
	// 1 failed to get reader: received close frame: status = StatusServiceRestart and reason = "moving"
	// 2 failed to get reader: received close frame: status = StatusServiceRestart and reason = "moving"
}

// A server of one's own, whose tunnels over TLS run on event loops.
func ExampleListener() {
	serve := func(server *http.Server, addr, certFile, keyFile string) error {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		return server.ServeTLS(&upgrade.Listener{Listener: l}, certFile, keyFile)
	}
	err := serve(&http.Server{}, "127.0.0.1:0", "missing.pem", "missing.pem")
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	// Output: true
}
