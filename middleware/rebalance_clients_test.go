package middleware

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
)

// A new client that was led to a backend in place of one that was moved, and has no answer
// from there, leaves the place to the next one.
func TestPlaceOfWhoWasMovedIsGivenBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		method string
		full   bool
		node   func(r *http.Request, leave func())
		free   bool
	}{
		{"it has its answer", "GET", false, func(*http.Request, func()) {}, false},
		{"it goes away", "GET", false, func(r *http.Request, leave func()) { leave(); <-r.Context().Done() }, true},
		{"the backend breaks off", "POST", false, func(*http.Request, func()) { panic(http.ErrAbortHandler) }, true},
		{"it goes elsewhere", "GET", false, func(*http.Request, func()) { panic(http.ErrAbortHandler) }, true},
		{"the backend has no room", "GET", true, func(*http.Request, func()) {}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			var backends []*balancer.Backend
			for id, handler := range map[string]http.HandlerFunc{
				"a": func(w http.ResponseWriter, r *http.Request) { tt.node(r, leave) },
				"b": func(http.ResponseWriter, *http.Request) {},
			} {
				srv := httptest.NewServer(handler)
				t.Cleanup(srv.Close)
				b, err := balancer.NewBackend(id, srv.URL, 1)
				if err != nil {
					t.Fatal(err)
				}
				backends = append(backends, b)
			}
			pool, err := balancer.NewPool(&balancer.Options{Limit: &balancer.Limit{Requests: 1, Wait: time.Millisecond}}, backends...)
			if err != nil {
				t.Fatal(err)
			}
			secrets := [][]byte{[]byte("0123456789abcdefghijklmnopqrstuv")}
			gw, err := NewGateway(pool, &Options{Affinity: &affinity.EngineIO{Secrets: secrets}, Rebalance: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			if tt.full {
				pool.Get("a").Begin()
			}
			arrivals := &gw.rebalancer.arrivals
			arrivals.expect("a", nil, false)
			in := httptest.NewRequestWithContext(ctx, tt.method, "/?EIO=4&transport=polling", strings.NewReader(""))
			gw.ServeHTTP(httptest.NewRecorder(), in)
			if b, _ := arrivals.lead(pool); (b == pool.Get("a")) != tt.free {
				t.Errorf("the next one is led to %v", b)
			}
			if n := arrivals.count()["a"]; (n == 1) != tt.free {
				t.Errorf("%d are expected", n)
			}
		})
	}
}
