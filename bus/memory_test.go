package bus_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/bus"
)

func TestCloseSlow(t *testing.T) {
	t.Parallel()
	m := &bus.Memory{Queue: 2, CloseSlow: true}
	slow, err := m.Subscribe(t.Context(), "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	quick, _ := m.Subscribe(t.Context(), "a")
	for _, data := range []string{"1", "2", "3"} {
		if err := m.Publish(t.Context(), "a", []byte(data)); err != nil {
			t.Fatal(err)
		}
		if got, err := quick.Next(t.Context()); string(got.Data) != data || err != nil {
			t.Errorf("the quick one got %q, %v", got.Data, err)
		}
	}
	for _, data := range []string{"1", "2"} {
		if got, err := slow.Next(t.Context()); string(got.Data) != data || err != nil {
			t.Errorf("the slow one got %q, %v", got.Data, err)
		}
	}
	for range 2 {
		if _, err := slow.Next(t.Context()); !errors.Is(err, bus.ErrClosed) || !strings.Contains(err.Error(), "too slow") {
			t.Errorf("Next: %v, want a reason", err)
		}
	}
	if err := slow.Add(t.Context(), "b"); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("Add: %v", err)
	}
}
