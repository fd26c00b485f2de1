package bus_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/limpet-go/limpet/bus"
)

// A Gap stands between the messages, and names the topics that a subscription has.
func TestMemoryGap(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, tt := range []struct {
		name   string
		topics []string // of the Gap
		want   [][]string
		none   bool // the last subscription gets none
	}{
		{"some topics", []string{"c", "b", "b", "x"}, [][]string{{"b"}, {"b", "c"}, nil}, true},
		{"all topics", nil, [][]string{nil, nil, nil}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := &bus.Memory{}
			var subs []bus.Subscription
			for _, topics := range [][]string{{"a", "b"}, {"a", "b", "c"}, {"a"}} {
				sub, err := m.Subscribe(t.Context(), topics...)
				if err != nil {
					t.Fatal(err)
				}
				defer sub.Close()
				subs = append(subs, sub)
			}
			numbers(t, m, "a", 1, 1)
			m.Gap(&bus.Gap{Lost: 7, Topics: tt.topics, Err: broken})
			numbers(t, m, "a", 2, 2)
			for i, sub := range subs {
				for _, want := range []string{"1", "gap", "2"} {
					if want == "gap" && i == 2 && tt.none {
						continue
					}
					msg, err := sub.Next(t.Context())
					var gap *bus.Gap
					switch {
					case want != "gap" && (err != nil || string(msg.Data) != want):
						t.Fatalf("subscription %d: got %q, %v, want %q", i, msg.Data, err, want)
					case want == "gap" && (!errors.As(err, &gap) || gap.Lost != 7 || !errors.Is(err, broken) || !slices.Equal(gap.Topics, tt.want[i])):
						t.Fatalf("subscription %d: got %+v, %v, want a Gap of %q", i, gap, err, tt.want[i])
					}
				}
			}
			if got, want := m.Stats().Gaps, int64(3); got != want && !tt.none || tt.none && got != 2 {
				t.Errorf("%d Gaps were counted", got)
			}
		})
	}
}

// A Gap that doesn't fit closes a subscription that is to be closed when it is slow.
func TestMemoryGapClosesSlow(t *testing.T) {
	t.Parallel()
	m := &bus.Memory{Queue: 1, CloseSlow: true}
	sub, err := m.Subscribe(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	numbers(t, m, "a", 1, 1)
	m.Gap(&bus.Gap{Lost: -1})
	if got := m.Stats(); got.ClosedSlow != 1 || got.Topics != 0 || got.Gaps != 0 {
		t.Errorf("%+v", got)
	}
	if msg, err := sub.Next(t.Context()); err != nil || string(msg.Data) != "1" {
		t.Errorf("got %q, %v", msg.Data, err)
	}
	if _, err := sub.Next(t.Context()); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("Next: %v", err)
	}
}
