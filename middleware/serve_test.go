package middleware_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	limpet "github.com/limpet-go/limpet/middleware"
)

// Serve answers what is under way, says goodbye to tunnels, goes on checking and
// then ends.
func TestServe(t *testing.T) {
	t.Parallel()
	asked, let := make(chan struct{}), make(chan struct{})
	n := newNode(t, "a", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Upgrade") != "":
			echo.ServeHTTP(w, r)
		case r.URL.Path == "/slow":
			close(asked)
			<-let
			io.WriteString(w, "slow")
		}
	}))
	pool := poolOf(t, &balancer.Options{StartDown: true, Check: &balancer.Check{Path: "/", Interval: 20 * time.Millisecond}}, map[string]*node{"a": n})
	mem := &bus.Memory{}
	heard := heard(t, mem)
	gw := newGateway(t, pool, &limpet.Options{Bus: mem})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- gw.Serve(ctx, &http.Server{Handler: gw}, l, 6*time.Second) }()
	await(t, pool, "a", balancer.Up) // it is checked
	heard(1)                         // and speaks to replicas

	url := "http://" + l.Addr().String()
	conn, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, conn)
	slow := make(chan string, 1)
	go func() {
		defer close(slow) // get ends this goroutine if it fails
		_, body := get(t, newClient(t), url+"/slow")
		slow <- body
	}()
	<-asked
	cancel()
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the tunnel ended with %v, want 1012", err)
	}
	select {
	case err := <-ended:
		t.Fatalf("ended with %v while a request was under way", err)
	default:
	}
	close(let)
	if body := <-slow; body != "slow" {
		t.Errorf("the request under way got %q", body)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestServeFailsToServe(t *testing.T) {
	t.Parallel()
	gw := newGateway(t, balancer.Static("a=http://127.0.0.1:1"), &limpet.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := gw.Serve(t.Context(), &http.Server{Handler: gw}, l, 0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
}

func TestServeDrainWithoutUnit(t *testing.T) {
	t.Parallel()
	gw := newGateway(t, balancer.Static("a=http://127.0.0.1:1"), nil)
	l := newPipes()
	if err := gw.Serve(t.Context(), &http.Server{Handler: gw}, l, 30); err == nil || !strings.Contains(err.Error(), "30*time.Second") {
		t.Errorf("Serve: %v", err)
	}
}
