package balancer_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/balancer"
)

// A backend that the operator has put off is told, on a connection of its own.
func TestTell(t *testing.T) {
	t.Parallel()
	got := make(chan *http.Request, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusTeapot)
		got <- r
	}))
	defer srv.Close()
	pool := balancer.Static("a=" + srv.URL)
	if err := pool.Off("a"); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest("POST", "/path?q", strings.NewReader("1"))
	if err != nil {
		t.Fatal(err)
	}
	status, err := pool.Transport().Tell(t.Context(), pool.Get("a"), r)
	if err != nil || status != http.StatusTeapot {
		t.Fatal(status, err)
	}
	if r := <-got; r.RequestURI != "/path?q" || r.ContentLength != 1 || "http://"+r.Host != srv.URL || !r.Close {
		t.Errorf("the backend got %s for %s, %d bytes, close: %v", r.RequestURI, r.Host, r.ContentLength, r.Close)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var failed *balancer.Error
	if _, err := pool.Transport().Tell(ctx, pool.Get("a"), r); !errors.As(err, &failed) || !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
}
