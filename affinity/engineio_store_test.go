package affinity_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/affinity"
)

// A slowStore fails the first times that a pin is stored.
type slowStore struct {
	affinity.LRU
	fails, calls atomic.Int32
}

func (s *slowStore) Swap(ctx context.Context, key, old, new string) (string, error) {
	s.calls.Add(1)
	if s.fails.Add(-1) >= 0 {
		return "", errors.New("too slow")
	}
	return s.LRU.Swap(ctx, key, old, new)
}

// A store that was too slow for a new session is told of it again, a few times.
func TestEngineIOStoresAgain(t *testing.T) {
	for _, tt := range []struct {
		fails, calls int32
		known        bool
	}{{0, 1, true}, {1, 2, true}, {3, 4, true}, {9, 4, false}} {
		synctest.Test(t, func(t *testing.T) {
			store := &slowStore{}
			store.fails.Store(tt.fails)
			e := &affinity.EngineIO{Mode: affinity.SIDModeLearn, Store: store}
			r := opens("3")
			res := &http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1, Body: io.NopCloser(strings.NewReader(`13:0{"sid":"s1"}`))}
			_, err := e.Bind(affinity.Answer{Response: res, Request: r, Found: find(t, e, r), Home: "b1"})
			if (err != nil) != (tt.fails > 0) {
				t.Errorf("after %d failures: %v", tt.fails, err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if pin := find(t, e, polls("3", "s1")); (pin.Backend == "b1") != tt.known || store.calls.Load() != tt.calls {
				t.Errorf("%d failures: home %q after %d calls", tt.fails, pin.Backend, store.calls.Load())
			}
		})
	}
}
