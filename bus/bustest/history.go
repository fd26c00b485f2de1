package bustest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/limpet-go/limpet/bus"
)

// TestHistory runs conformance tests for a [bus.History] as subtests of t, beside those of
// [TestBus]. Each call of newProcess returns the bus as another process would have it. Each
// topic must keep 64 messages at least.
func TestHistory(t *testing.T, newProcess func() bus.History) {
	t.Helper()
	s := &suite{run: rand.Uint64()}
	for _, tt := range []struct {
		name string
		test func(t *testing.T, a, b bus.History, topic string)
	}{
		{"IDs are those that subscribers get", sameIDs},
		{"what is behind a message", behind},
		{"a topic without messages", noMessages},
		{"what is no ID", noID},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, newProcess(), newProcess(), s.topic(t, "topic")) })
	}
}

// fill appends n messages to a topic, and returns their IDs.
func fill(t *testing.T, b bus.History, topic string, n int) (ids []string) {
	t.Helper()
	for i := range n {
		id, err := b.Append(t.Context(), topic, fmt.Append(nil, i))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// wantRange fails the test unless list has the messages that fill has appended, from the
// first on.
func wantRange(t *testing.T, list []bus.Message, err error, topic string, ids []string, first, n int) {
	t.Helper()
	if err != nil || len(list) != n {
		t.Fatalf("got %d messages, %v; want %d", len(list), err, n)
	}
	for i, m := range list {
		if m.Topic != topic || m.ID != ids[first+i] || string(m.Data) != fmt.Sprint(first+i) {
			t.Errorf("message %d is %q of %q with the ID %s", i, m.Data, m.Topic, m.ID)
		}
	}
}

func sameIDs(t *testing.T, a, b bus.History, topic string) {
	sub := subscribe(t, b, topic)
	for _, id := range fill(t, a, topic, 10) {
		m, err := sub.Next(t.Context())
		if err != nil || m.ID != id {
			t.Errorf("a message with the ID %q, %v; Append has returned %q", m.ID, err, id)
		}
	}
	publish(t, b, topic, "published")
	m, err := sub.Next(t.Context())
	list, failed := a.Last(t.Context(), topic, 1)
	if err = errors.Join(err, failed); err != nil || len(list) != 1 || list[0].ID != m.ID || string(list[0].Data) != "published" {
		t.Errorf("the last one is %+v, %v; subscribers have got %+v", list, err, m)
	}
}

func behind(t *testing.T, a, b bus.History, topic string) {
	ids := fill(t, a, topic, 50)
	if len(slices.Compact(slices.Sorted(slices.Values(ids)))) != 50 {
		t.Fatalf("IDs that aren't unique: %q", ids)
	}
	for _, tt := range []struct{ from, n, want int }{
		{0, 100, 49}, {0, 10, 10}, {40, 10, 9}, {48, 10, 1}, {49, 10, 0}, {10, 0, 0}, {10, -1, 0},
	} {
		list, err := b.After(t.Context(), topic, ids[tt.from], tt.n)
		wantRange(t, list, err, topic, ids, tt.from+1, tt.want)
	}
	list, err := b.After(t.Context(), topic, "0", 20)
	wantRange(t, list, err, topic, ids, 0, 20)
	for n, want := range map[int]int{-1: 0, 0: 0, 1: 1, 20: 20, 100: 50} {
		list, err := b.Last(t.Context(), topic, n)
		wantRange(t, list, err, topic, ids, 50-want, want)
	}
	list, err = b.After(t.Context(), topic+" of others", ids[0], 10)
	wantGap(t, list, err, topic+" of others")
}

func noMessages(t *testing.T, a, b bus.History, topic string) {
	list, err := a.Last(t.Context(), topic, 10)
	wantRange(t, list, err, topic, nil, 0, 0)
	list, err = b.After(t.Context(), topic, "0", 10)
	wantRange(t, list, err, topic, nil, 0, 0)
	list, err = b.After(t.Context(), topic, "1700000000000-0", 10)
	wantGap(t, list, err, topic)
}

func noID(t *testing.T, a, _ bus.History, topic string) {
	fill(t, a, topic, 1)
	for _, id := range []string{"", "-", "+", "$", "(1-1", "x", "1-2-3", "1-", "-1", " 1-1", "18446744073709551616-0"} {
		list, err := a.After(t.Context(), topic, id, 10)
		var gap *bus.Gap
		if err == nil || errors.As(err, &gap) || len(list) > 0 {
			t.Errorf("ID %q: %d messages, %v", id, len(list), err)
		}
	}
	for _, id := range []string{"1-1", "9999999999999-1", "18446744073709551615-18446744073709551615"} {
		list, err := a.After(t.Context(), topic, id, 10)
		wantGap(t, list, err, topic)
	}
}

// wantGap fails the test unless the history has said that messages may be missing.
func wantGap(t *testing.T, list []bus.Message, err error, topic string) {
	t.Helper()
	var gap *bus.Gap
	if !errors.As(err, &gap) || gap.Lost != -1 || !slices.Equal(gap.Topics, []string{topic}) || len(list) > 0 {
		t.Errorf("got %d messages, %v; want a Gap for the topic", len(list), err)
	}
}
