package stay_test

import (
	"context"
	"testing"

	"github.com/limpet-go/limpet/internal/stay"
)

// An owner counts how often it is told of the end.
type owner struct {
	stay.Stay
	ends int
}

func (o *owner) End() { o.ends++ }

// A stay ends when the last one who holds it lets go, and those in front of it likewise.
func TestStay(t *testing.T) {
	t.Parallel()
	if stay.Hold(context.Background()) != nil {
		t.Error("something is held where there is nothing")
	}
	var outer, inner owner
	ctx := outer.Begin(t.Context(), &outer)
	ctx = inner.Begin(ctx, &inner)
	first, second := stay.Hold(ctx), stay.Hold(ctx)
	for _, tt := range []struct {
		name         string
		release      func()
		outer, inner int
	}{
		{"the handler of the inner one returns", inner.Release, 0, 0},
		{"one lets go", first, 0, 0},
		{"it does so again", first, 0, 0},
		{"the other one lets go", second, 0, 1},
		{"the handler of the outer one returns", outer.Release, 1, 1},
	} {
		if tt.release(); outer.ends != tt.outer || inner.ends != tt.inner {
			t.Errorf("%s: the outer one has ended %d times and the inner one %d, want %d and %d",
				tt.name, outer.ends, inner.ends, tt.outer, tt.inner)
		}
	}
}

// A stay that has ended isn't held any more: its owner would be told of a second end. One in
// front of it that goes on is.
func TestStayHasEnded(t *testing.T) {
	t.Parallel()
	var outer, inner owner
	ctx := inner.Begin(outer.Begin(t.Context(), &outer), &inner)
	inner.Release()
	release := stay.Hold(ctx)
	outer.Release()
	if inner.ends != 1 || outer.ends != 0 {
		t.Errorf("ended %d and %d times, want 1 and 0: one holds the outer one", inner.ends, outer.ends)
	}
	if release(); inner.ends != 1 || outer.ends != 1 {
		t.Errorf("ended %d and %d times, want once each", inner.ends, outer.ends)
	}
	if stay.Hold(ctx) != nil {
		t.Error("what has ended is held")
	}
}
