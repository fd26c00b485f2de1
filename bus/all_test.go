package bus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/bus"
)

// spell describes what an iteration gave, a word each.
func spell(m bus.Message, err error) string {
	var gap *bus.Gap
	switch {
	case err == nil:
		return string(m.Data)
	case errors.As(err, &gap):
		return fmt.Sprintf("gap%d", gap.Lost)
	case errors.Is(err, bus.ErrClosed):
		return "closed"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	return err.Error()
}

func TestAll(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		closeSlow bool
		publish   int
		last      string // what ends the iteration at message 3
		want      string
	}{
		{"its context ends", false, 3, "cancel", "1 2 3 canceled"},
		{"its context ends before the queue is empty", false, 4, "cancel", "gap1 2 3 canceled"},
		{"the subscription is closed", false, 3, "close", "1 2 3 closed"},
		{"the queue was full", false, 5, "cancel", "gap2 3 canceled"},
		{"it was closed because it was slow", true, 4, "", "1 2 3 closed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := &bus.Memory{Queue: 3, CloseSlow: tt.closeSlow}
			sub, err := m.Subscribe(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			defer sub.Close()
			numbers(t, m, "a", 1, tt.publish)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var got []string
			for m, err := range bus.All(ctx, sub) { // goes on behind each error
				got = append(got, spell(m, err))
				if string(m.Data) == "3" {
					switch tt.last {
					case "cancel":
						cancel()
					case "close":
						sub.Close()
					}
				}
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// A loop that breaks leaves the other messages for the next one.
func TestAllBreak(t *testing.T) {
	t.Parallel()
	m := &bus.Memory{}
	sub, err := m.Subscribe(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	numbers(t, m, "a", 1, 3)
	var got []string
	for range 3 {
		for m, err := range bus.All(t.Context(), sub) {
			got = append(got, spell(m, err))
			break
		}
	}
	if want := []string{"1", "2", "3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
