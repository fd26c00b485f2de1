package balancer_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

func Example() {
	pool := balancer.Static("a=http://10.0.0.1:3000", "b=http://10.0.0.2:3000,weight=2")
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go pool.Run(ctx) // health checks

	r := httptest.NewRequest("GET", "/", nil)
	b, err := pool.Pick(r, "b", "") // the client is pinned to b
	fmt.Println(b.ID(), err)

	b, err = pool.Pick(r, "b", "", b) // b was tried and failed
	fmt.Println(b.ID(), err)
	// Output:
	// b <nil>
	// a <nil>
}

func ExamplePool_Drain() {
	pool := balancer.Static("a=http://10.0.0.1:3000", "b=http://10.0.0.2:3000")
	pool.OnChange(func(c balancer.Change) {
		fmt.Println(c.Backend.ID(), c.From, "->", c.To, "by", c.Why)
	})
	pool.Drain("a", 10*time.Minute)
	b, _ := pool.Pick(nil, "", "") // a new client
	fmt.Println("new clients go to", b.ID())
	pool.Undrain("a")
	// Output:
	// a up -> draining by operator: drain
	// new clients go to b
	// a draining -> up by operator: serve
}

func ExampleTransport() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello from ", r.URL.Path)
	}))
	defer server.Close()
	backend, err := balancer.NewBackend("a", server.URL, 1)
	if err != nil {
		panic(err)
	}
	transport := &balancer.Transport{}
	defer transport.CloseIdleConnections()

	ctx := balancer.WithBackend(context.Background(), backend)
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://www.example.com/chat", nil)
	res, err := transport.RoundTrip(req)
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	fmt.Printf("%s\n", body)
	// Output: hello from /chat
}

// A picker of one's own: the backend with the shortest ID.
type shortest struct{}

func (shortest) Pick(_ *http.Request, from []*balancer.Backend) *balancer.Backend {
	best := from[0]
	for _, b := range from {
		if len(b.ID()) < len(best.ID()) {
			best = b
		}
	}
	return best
}

func ExamplePicker() {
	long, _ := balancer.NewBackend("long", "http://10.0.0.1:3000", 0)
	xs, _ := balancer.NewBackend("xs", "http://10.0.0.2:3000", 0)
	pool, err := balancer.NewPool(&balancer.Options{Picker: shortest{}}, long, xs)
	if err != nil {
		panic(err)
	}
	b, _ := pool.Pick(nil, "", "")
	fmt.Println(b.ID())
	// Output: xs
}

func ExampleDialer() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprint(w, "called from ", host)
	}))
	defer server.Close()
	backend, err := balancer.NewBackend("a", server.URL, 1)
	if err != nil {
		panic(err)
	}
	dialer := &balancer.Dialer{LocalAddrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}} // and more of them
	pool, err := balancer.NewPool(&balancer.Options{
		Transport: &balancer.Transport{Dial: dialer.DialContext},
	}, backend)
	if err != nil {
		panic(err)
	}
	defer pool.Transport().CloseIdleConnections()

	ctx := balancer.WithBackend(context.Background(), backend)
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://www.example.com/", nil)
	res, err := pool.Transport().RoundTrip(req)
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	fmt.Println(string(text))
	// Output: called from 127.0.0.1
}
