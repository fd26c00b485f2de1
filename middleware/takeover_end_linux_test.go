package middleware_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// successorAt returns one that has met its predecessor, and hasn't asked for anything yet.
func successorAt(t *testing.T, path string, nodes map[string]*node) (*limpet.Handover, *limpet.Gateway) {
	t.Helper()
	h, err := limpet.Takeover(t.Context(), path)
	ok(t, err)
	gw, err := limpet.NewGateway(poolOf(t, &balancer.Options{Logger: slog.New(slog.DiscardHandler)}, nodes), &limpet.Options{Handover: h, Logger: slog.New(slog.DiscardHandler)})
	ok(t, err)
	return h, gw
}

// A successor that takes nothing, and is shut down then, leaves the predecessor's socket alone:
// the next successor finds it.
func TestTakeoverGivenUp(t *testing.T) {
	t.Parallel()
	nodes := map[string]*node{"a": newNode(t, "a", nil)}
	path := filepath.Join(t.TempDir(), "takeover")
	first := generationOf(t, path, nodes, nil)
	h, gw := successorAt(t, path, nodes)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Take(ctx); err == nil {
		t.Fatal("it has taken everything")
	}
	ok(t, gw.Shutdown(t.Context()))
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the predecessor's socket: %v", err)
	}
	second := generationOf(t, path, nodes, nil)
	second.follows(t, first)
}

// A predecessor that is told to end while its successor isn't ready yet leaves the listeners to
// it.
func TestTakeoverPredecessorEnds(t *testing.T) {
	t.Parallel()
	nodes := map[string]*node{"a": newNode(t, "a", nil)}
	path := filepath.Join(t.TempDir(), "takeover")
	first := generationOf(t, path, nodes, nil)
	h, gw := successorAt(t, path, nodes)
	first.stop()
	first.returned(t)
	ok(t, h.Take(t.Context()))
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket: %v", err)
	}
	ok(t, gw.Shutdown(t.Context()))
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// Shutdown may be called while Take runs. Nothing of it is left then.
func TestTakeoverShutDownMeanwhile(t *testing.T) {
	t.Parallel()
	nodes := map[string]*node{"a": newNode(t, "a", nil)}
	path := filepath.Join(t.TempDir(), "takeover")
	generationOf(t, path, nodes, nil)
	h, gw := successorAt(t, path, nodes)
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		_ = h.Take(t.Context()) // either may be first
	}()
	ok(t, gw.Shutdown(t.Context()))
	<-taken
}

// A backend that is added while the successor carries out the predecessor's wishes, as its source
// may do at any moment, gets its own.
func TestTakeoverWishOfLateBackend(t *testing.T) {
	t.Parallel()
	nodes := make(map[string]*node)
	for _, id := range strings.Split("a b c d e f g h i j", " ") {
		nodes[id] = newNode(t, id, nil)
	}
	path := filepath.Join(t.TempDir(), "takeover")
	first := generationOf(t, path, nodes, nil)
	for id := range nodes {
		ok(t, first.pool.SetWeight(id, 7))
	}
	late, err := balancer.NewBackend("j", nodes["j"].URL, 1)
	ok(t, err)
	delete(nodes, "j")
	h, gw := successorAt(t, path, nodes)
	defer gw.Shutdown(t.Context())
	done := 0
	defer gw.Pool().OnChange(func(c balancer.Change) {
		if c.Backend.Wish().Weight == 7 && c.Backend != late {
			if done++; done == len(nodes) { // the last wish of a backend that is there
				ok(t, gw.Pool().Add(late))
			}
		}
	})()
	ok(t, h.Take(t.Context()))
	if late.Wish().Weight != 7 {
		t.Errorf("its wish is %+v", late.Wish())
	}
}
