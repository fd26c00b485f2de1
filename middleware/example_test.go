package middleware_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// chatServer stands for a backend that runs elsewhere.
func chatServer(name string) (url string, stop func()) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) }))
	return s.URL, s.Close
}

// A whole gateway, as one route of a service.
func ExampleNewGateway() {
	one, stop := chatServer("chat")
	defer stop()

	pool := balancer.Static("one=" + one)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go pool.Run(ctx) // health checks
	gateway, err := limpet.NewGateway(pool, &limpet.Options{
		Affinity: &affinity.Cookie{Secrets: [][]byte{[]byte("keep 32 secret random bytes here")}},
	})
	if err != nil {
		panic(err)
	}
	r := chi.NewRouter()
	r.Handle("/chat/*", gateway)

	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest("GET", "/chat/room", nil))
	fmt.Println(w.Code, w.Body, w.Result().Cookies()[0].Name)
	// Output: 200 chat limpet
}

// A service that runs until SIGTERM, and then drains for ten seconds.
func ExampleGateway_Serve() {
	gateway, err := limpet.NewGateway(balancer.Static("one=http://127.0.0.1:3000"), nil)
	if err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", ":8080")
	if err != nil {
		panic(err)
	}
	if err := gateway.Serve(ctx, &http.Server{Handler: gateway}, l, 10*time.Second); err != nil {
		panic(err)
	}
}

// Every WebSocket client of the gateway is in a room of the hub, which can speak
// to it whatever its backend does.
func ExampleJoin() {
	h, err := hub.New(&bus.Memory{}, nil) // somebody calls h.Run(ctx) and logs its error
	if err != nil {
		panic(err)
	}
	gateway, err := limpet.NewGateway(balancer.Static("one=http://127.0.0.1:3000"), nil)
	if err != nil {
		panic(err)
	}
	gateway.Observe(limpet.Observer{Opened: func(rec *limpet.Record, t *upgrade.Tunnel) {
		room := rec.Request.URL.Query().Get("room")
		if _, err := limpet.Join(rec.Request.Context(), h, t, hub.MemberOptions{Rooms: []string{room}}); err != nil {
			t.Close(1011, "no room")
		}
	}})
	http.Handle("/chat", gateway)

	maintenance := hub.Text([]byte("maintenance in five minutes"))
	_ = h.Send(context.Background(), hub.Who{Rooms: []string{"lobby"}}, maintenance)
}

// Stickiness for a proxy that is there already.
func ExampleSticky() {
	one, stop := chatServer("chat")
	defer stop()

	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetXForwarded() },
		Transport: &limpet.Sticky{Pool: balancer.Static("one=" + one), Affinity: &affinity.Hash{Key: affinity.Query("user")}},
	}
	w := httptest.NewRecorder()
	proxy.ServeHTTP(w, httptest.NewRequest("GET", "/?user=ann", nil))
	fmt.Println(w.Code, w.Body)
	// Output: 200 chat
}

// The nearest address that is not a trusted proxy's is the client's.
func ExampleClientIP() {
	client := limpet.ClientIP{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "10.0.0.1:4711"
	r.Header.Set("X-Forwarded-For", "6.6.6.6, 198.51.100.7, 10.0.0.2")
	fmt.Println(client.Addr(r))
	// Output: 198.51.100.7
}

// The classic set-up: a cookie that names the server.
func ExampleAssignCookie() {
	servers := map[string]string{"1": "one"}
	assign := &limpet.AssignCookie{Cookie: http.Cookie{Name: "server"}, Backends: servers}
	gateway := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pin, _ := (&affinity.CookieMap{Name: "server", Backends: servers}).Find(r)
		fmt.Println("home:", pin.Backend)
	})
	w := httptest.NewRecorder()
	assign.Handler(gateway).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	fmt.Println(w.Header().Get("Set-Cookie"))
	// Output:
	// home: one
	// server=1; Path=/; SameSite=Lax
}
