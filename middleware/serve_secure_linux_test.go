package middleware_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	limpet "github.com/limpet-go/limpet/middleware"
)

// Where Serve serves TLS its tunnels have no goroutines, and HTTP/2 works as ever.
func TestServeSecure(t *testing.T) {
	gw := newGateway(t, poolOf(t, nil, map[string]*node{"a": newNode(t, "a", echo)}), &limpet.Options{})
	keys := httptest.NewUnstartedServer(nil) // of its certificate
	keys.StartTLS()
	defer keys.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor == 2 {
				w.WriteHeader(http.StatusTeapot)
				return
			}
			gw.ServeHTTP(w, r)
		}),
		TLSConfig: &tls.Config{Certificates: keys.TLS.Certificates},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- gw.Serve(ctx, server, l, 2*time.Second) }()

	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	url := "https://" + l.Addr().String()
	res, err := client.Get(url)
	if err != nil || res.StatusCode != http.StatusTeapot {
		t.Fatalf("over HTTP/2: %v, %v", res, err)
	}
	res.Body.Close()

	upgrading := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	conn, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPClient: upgrading})
	if err != nil {
		t.Fatal(err)
	}
	talk(t, conn)
	for end := time.Now().Add(10 * time.Second); ; runtime.Gosched() { // tunnels of other tests may still be ending
		var all strings.Builder
		pprof.Lookup("goroutine").WriteTo(&all, 1)
		if strings.Contains(all.String(), "upgrade.(*loop).run") && !strings.Contains(all.String(), "upgrade.(*pumpFlow)") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the tunnel isn't on a loop")
		}
	}
	cancel()
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the tunnel ended with %v, want 1012", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
