package balancer_test

import (
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/limpet-go/limpet/balancer"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
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
