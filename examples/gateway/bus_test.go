package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/redistest"
	limpet "github.com/limpet-go/limpet/middleware"
)

// What is decided on another replica holds here.
func TestBus(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	node := func(id string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, id) }))
		t.Cleanup(s.Close)
		return id + "=" + s.URL
	}
	a, b := node("a"), node("b")
	url := "http://" + address(t, gateway(t, nil, "-listen", "127.0.0.1:0", "-backend", a, "-backend", b, "-bus", "redis://"+server.Addr))

	pool := balancer.Static(a, b)
	other, err := limpet.NewGateway(pool, &limpet.Options{Bus: &bus.Redis{Client: server.Client(t)}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- other.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	if err := pool.Off("a"); err != nil {
		t.Fatal(err)
	}
	for inARow, by := 0, time.Now().Add(20*time.Second); inARow < 4; { // new clients take turns
		res, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if inARow++; string(body) == "a" {
			inARow = 0
		}
		if time.Now().After(by) {
			t.Fatal("a is still asked")
		}
	}
}
