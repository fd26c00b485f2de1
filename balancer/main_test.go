package balancer_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) {
	if os.Getenv(asBackend) != "" {
		serveHello()
		return
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	leaktest.Main(m)
}

// hello answers whatever it is asked.
var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	io.WriteString(w, "hello")
})

// asBackend names a variable that makes a process of these tests a backend, until
// its standard input ends.
const asBackend = "LIMPET_TEST_AS_BACKEND"

func serveHello() {
	server := httptest.NewServer(hello)
	fmt.Println(server.URL)
	io.Copy(io.Discard, os.Stdin)
	server.Close()
}

// newBackend returns a backend, at an address that nothing listens on unless a fake dial does.
func newBackend(t testing.TB, id string, weight int) *balancer.Backend {
	t.Helper()
	b, err := balancer.NewBackend(id, "http://"+id+".test", weight)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newPool returns a pool of backends with these IDs, all of weight 1.
func newPool(t testing.TB, opts *balancer.Options, ids ...string) *balancer.Pool {
	t.Helper()
	p, err := balancer.NewPool(opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if err := p.Add(newBackend(t, id, 1)); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
