package middleware_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// A backend that treats requests badly, though its health page is good, is ejected: it keeps
// its clients, and gets no new ones.
func TestOutlierIsEjected(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		outliers balancer.Outliers
		bad      http.HandlerFunc
		path     string
		why      string // "": it isn't ejected
	}{
		{"status", balancer.Outliers{Consecutive: 2, Statuses: []int{503}}, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}, "/", "status 503"},
		{"a status that isn't chosen", balancer.Outliers{Consecutive: 2}, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}, "/", ""},
		{"breaks before the answer", balancer.Outliers{Consecutive: 2}, func(w http.ResponseWriter, r *http.Request) {
			panic(http.ErrAbortHandler)
		}, "/", "failures in a row"},
		{"slow", balancer.Outliers{Consecutive: 2, Slow: 200 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(400 * time.Millisecond)
		}, "/", "an answer that began after"},
		{"a poll", balancer.Outliers{Consecutive: 2, Slow: 200 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(400 * time.Millisecond)
		}, "/?EIO=4&transport=polling&sid=x", ""},
		{"a stream", balancer.Outliers{Consecutive: 2, Slow: 200 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(400 * time.Millisecond)
			w.Header().Set("Content-Type", "text/event-stream")
		}, "/", ""},
		{"refuses tunnels", balancer.Outliers{Consecutive: 2, Statuses: []int{503}}, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}, "ws", "status 503"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes := map[string]*node{"a": newNode(t, "a", tt.bad), "b": newNode(t, "b", nil)}
			pool := poolOf(t, &balancer.Options{Outliers: &tt.outliers}, nodes)
			gateway, _ := serve(t, pool, &limpet.Options{Affinity: &affinity.Cookie{Secrets: testKeys}})
			for range 8 {
				if tt.path == "ws" {
					_, _, _ = websocket.Dial(t.Context(), gateway.URL, nil)
					continue
				}
				get(t, newClient(t), gateway.URL+tt.path)
			}
			s := pool.Get("a").Status()
			if ejected := s.State == balancer.Draining; ejected != (tt.why != "") || !strings.Contains(s.Why, tt.why) {
				t.Fatalf("%v, because %q, want %q", s.State, s.Why, tt.why)
			}
			if s := pool.Get("b").Status(); s.State != balancer.Up {
				t.Errorf("b is %v, because %q", s.State, s.Why)
			}
		})
	}
}

// Sticky tells the same.
func TestOutlierOfSticky(t *testing.T) {
	t.Parallel()
	nodes := map[string]*node{"a": newNode(t, "a", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) })), "b": newNode(t, "b", nil)}
	pool := poolOf(t, &balancer.Options{Outliers: &balancer.Outliers{Consecutive: 2, Statuses: []int{502}}}, nodes)
	srv := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(*httputil.ProxyRequest) {},
		Transport: &limpet.Sticky{Pool: pool, Affinity: &affinity.Cookie{Secrets: testKeys}},
	})
	t.Cleanup(srv.Close)
	for range 4 {
		res, err := http.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	if s := pool.Get("a").Status(); s.State != balancer.Draining || !strings.Contains(s.Why, "ejected for 30s") {
		t.Errorf("%v, because %q", s.State, s.Why)
	}
}
