package middleware_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// A request that can't be sent as this process has made it isn't blamed on the backend.
func TestStatusOfWhatCannotBeSent(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		err  error
		want int
	}{
		{"an invalid request", &balancer.Error{Invalid: true, Err: errors.New("x")}, 500},
		{"wrapped", fmt.Errorf("again: %w", &balancer.Error{Invalid: true, Err: errors.New("x")}), 500},
		{"the backend's fault", &balancer.Error{Err: errors.New("x")}, 502},
		{"a body that is too large", &balancer.Error{Invalid: true, Sent: true, Err: &http.MaxBytesError{}}, 413},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := limpet.StatusCode(tt.err); got != tt.want {
				t.Errorf("StatusCode(%v) is %d, want %d", tt.err, got, tt.want)
			}
		})
	}
}

// A Rewrite that makes a request nobody could send is this process's own mistake.
func TestRewriteMakesAnInvalidField(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv, _ := serve(t, pool, &limpet.Options{Rewrite: func(_, out *http.Request) { out.Header["X-Bad"] = []string{"a\r\nb"} }})
	if res, _ := get(t, newClient(t), srv.URL); res.StatusCode != http.StatusInternalServerError {
		t.Errorf("%s, want 500", res.Status)
	}
	if state := pool.Get("a").State(); state != up {
		t.Errorf("the backend is %v", state)
	}
}
