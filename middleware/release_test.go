package middleware_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// Requests that wait at a backend which the half rule keeps from being lost go elsewhere if
// they may be repeated, and others wait on.
func TestRequestsBeyondTheHalfRule(t *testing.T) {
	t.Parallel()
	let := make(chan struct{})
	var once sync.Once
	defer once.Do(func() { close(let) })
	arrived := make(chan string, 10)
	var hung sync.Map
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := w.Header().Get("Node")
		if r.URL.Path == "/wait" {
			if _, first := hung.Load(id); first {
				arrived <- r.Method
			}
		}
		if _, hangs := hung.Load(id); hangs && r.URL.Path != "/" {
			<-let
		}
		sayNode(w, r)
	})
	nodes := map[string]*node{"a": newNode(t, "a", h), "b": newNode(t, "b", h), "c": newNode(t, "c", h)}
	pool := poolOf(t, &balancer.Options{Check: &balancer.Check{Path: "/health", Interval: 50 * time.Millisecond, Timeout: 500 * time.Millisecond}}, nodes)
	gw := newGateway(t, pool, nil)
	homes := make(map[string]*http.Cookie)
	for i := 0; len(homes) < 3 && i < 100; i++ {
		w := httptest.NewRecorder()
		gw.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		homes[w.Body.String()] = w.Result().Cookies()[0]
	}
	hung.Store("a", true) // two of three: the Lost of one of them stays open
	hung.Store("b", true)
	type answer struct{ from, by string }
	answers := make(chan answer, 10)
	ask := func(method, home string) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, method, "/wait", nil)
		r.AddCookie(homes[home])
		w := httptest.NewRecorder()
		gw.ServeHTTP(w, r)
		answers <- answer{method + home, fmt.Sprint(w.Code, w.Body.String())}
	}
	for _, home := range []string{"a", "b"} {
		go ask("GET", home)
		go ask("POST", home)
	}
	for range 4 {
		<-arrived
	}
	run(t, pool)
	await(t, pool, "a", balancer.Down)
	await(t, pool, "b", balancer.Down)
	// The GETs, and the POST of the lost one, which fails.
	posts := 0
	for range 3 {
		switch a := <-answers; {
		case a.from[:3] == "GET" && a.by != "200c":
			t.Errorf("%s got %s, want c's answer", a.from, a.by)
		case a.from[:3] == "POS":
			posts++
		}
	}
	if posts != 1 {
		t.Errorf("%d POSTs have ended", posts)
	}
	once.Do(func() { close(let) })
	if a := <-answers; a.by != "200"+a.from[4:] {
		t.Errorf("%s got %s, want its backend's answer", a.from, a.by)
	}
}
