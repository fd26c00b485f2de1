package middleware_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// A halfPool has backends a, b and c. Once hang was called a and b answer neither requests nor
// checks, until the channel is closed: two of three, so that the Lost of one stays open.
type halfPool struct {
	pool    *balancer.Pool
	gw      *limpet.Gateway
	homes   map[string]*http.Cookie
	arrived chan string // methods of requests that a and b have got
	answers chan halfAnswer
	hung    sync.Map
	let     chan struct{}
}

type halfAnswer struct{ from, by string }

func newHalfPool(t *testing.T, opts *limpet.Options) *halfPool {
	h := &halfPool{
		homes: make(map[string]*http.Cookie), arrived: make(chan string, 100), answers: make(chan halfAnswer, 100), let: make(chan struct{}),
	}
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, hangs := h.hung.Load(w.Header().Get("Node")); hangs && r.URL.Path != "/" {
			if r.URL.Path == "/wait" {
				h.arrived <- r.Method
			}
			<-h.let
		}
		sayNode(w, r)
	})
	nodes := map[string]*node{"a": newNode(t, "a", serve), "b": newNode(t, "b", serve), "c": newNode(t, "c", serve)}
	h.pool = poolOf(t, &balancer.Options{Check: &balancer.Check{Path: "/health", Interval: 50 * time.Millisecond, Timeout: 500 * time.Millisecond}}, nodes)
	h.gw = newGateway(t, h.pool, opts)
	for i := 0; len(h.homes) < 3 && i < 100; i++ {
		w := httptest.NewRecorder()
		h.gw.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		h.homes[w.Body.String()] = w.Result().Cookies()[0]
	}
	h.hung.Store("a", true)
	h.hung.Store("b", true)
	return h
}

// ask sends a request of a client that has this home.
func (h *halfPool) ask(t *testing.T, method, home string) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, method, "/wait", nil)
	r.AddCookie(h.homes[home])
	w := httptest.NewRecorder()
	h.gw.ServeHTTP(w, r)
	h.answers <- halfAnswer{method + home, fmt.Sprint(w.Code, w.Body.String())}
}

// Requests that wait at a backend which the half rule keeps from being lost go elsewhere if
// they may be repeated, and others wait on.
func TestRequestsBeyondTheHalfRule(t *testing.T) {
	t.Parallel()
	h := newHalfPool(t, nil)
	answer := sync.OnceFunc(func() { close(h.let) })
	defer answer()
	for _, home := range []string{"a", "b"} {
		go h.ask(t, "GET", home)
		go h.ask(t, "POST", home)
	}
	for range 4 {
		<-h.arrived
	}
	run(t, h.pool)
	await(t, h.pool, "a", balancer.Down)
	await(t, h.pool, "b", balancer.Down)
	// The GETs, and the POST of the lost one, which fails.
	posts := 0
	for range 3 {
		switch a := <-h.answers; {
		case a.from[:3] == "GET" && a.by != "200c":
			t.Errorf("%s got %s, want c's answer", a.from, a.by)
		case a.from[:3] == "POS":
			posts++
		}
	}
	if posts != 1 {
		t.Errorf("%d POSTs have ended", posts)
	}
	answer()
	if a := <-h.answers; a.by != "200"+a.from[4:] {
		t.Errorf("%s got %s, want its backend's answer", a.from, a.by)
	}
}

// Requests that can't be released at the moment when their backend goes Down are so later.
func TestReleasesGoOn(t *testing.T) {
	t.Parallel()
	t.Run("the budget is used up", func(t *testing.T) {
		t.Parallel()
		h := newHalfPool(t, &limpet.Options{Retry: limpet.Retry{Floor: 4, Budget: 1e-3}})
		defer close(h.let)
		const clients = 6
		for range clients {
			go h.ask(t, "GET", "a")
			go h.ask(t, "GET", "b")
		}
		for range 2 * clients {
			<-h.arrived
		}
		run(t, h.pool)
		for range 2 * clients {
			if a := <-h.answers; a.by != "200c" {
				t.Errorf("%s got %s, want c's answer", a.from, a.by)
			}
		}
	})
	t.Run("no other backend is up", func(t *testing.T) {
		t.Parallel()
		h := newHalfPool(t, nil)
		defer close(h.let)
		go h.ask(t, "GET", "a")
		go h.ask(t, "GET", "b")
		for range 2 {
			<-h.arrived
		}
		if err := h.pool.Drain("c", time.Hour); err != nil {
			t.Fatal(err)
		}
		run(t, h.pool)
		await(t, h.pool, "a", balancer.Down)
		await(t, h.pool, "b", balancer.Down)
		if err := h.pool.Undrain("c"); err != nil {
			t.Fatal(err)
		}
		// That of the lost one has found no backend.
		got := []string{(<-h.answers).by, (<-h.answers).by}
		if !slices.Contains(got, "200c") {
			t.Errorf("got %q, want c's answer for one", got)
		}
	})
}
