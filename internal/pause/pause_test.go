package pause_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/internal/pause"
)

func TestFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if !pause.For(ctx, time.Second) || time.Since(begin) != time.Second {
			t.Errorf("a pause of a second ended after %v", time.Since(begin))
		}
		if pause.For(ctx, time.Second) || time.Since(begin) != 1500*time.Millisecond {
			t.Errorf("the context ended after 1.5 s, and the pause after %v", time.Since(begin))
		}
	})
}
