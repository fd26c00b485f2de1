package bus_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/redistest"
)

// lost returns how many messages behind one a history says are missing, or fails the test.
func lost(t *testing.T, b bus.History, topic, id string) int64 {
	t.Helper()
	list, err := b.After(t.Context(), topic, id, 10)
	var gap *bus.Gap
	if !errors.As(err, &gap) || len(list) > 0 {
		t.Fatalf("behind %s: %d messages, %v; want a Gap", id, len(list), err)
	}
	return gap.Lost
}

// A Memory keeps as many messages as it is told to, and says how many are missing.
func TestMemoryHistory(t *testing.T) {
	t.Parallel()
	m := &bus.Memory{History: 10}
	var ids []string
	for i := range 25 {
		id, err := m.Append(t.Context(), "a", fmt.Append(nil, i))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for first, missing := range map[int]int64{0: 14, 13: 1} {
		if got := lost(t, m, "a", ids[first]); got != missing {
			t.Errorf("%d are missing behind message %d, want %d", got, first, missing)
		}
	}
	if got := lost(t, m, "a", "0"); got != 15 {
		t.Errorf("%d are missing in all, want 15", got)
	}
	list, err := m.After(t.Context(), "a", ids[14], 100)
	if err != nil || len(list) != 10 || list[0].ID != ids[15] || list[9].ID != ids[24] || string(list[9].Data) != "24" {
		t.Errorf("got %d messages, %v", len(list), err)
	}
	if list, err := (&bus.Memory{}).Last(t.Context(), "a", 10); err != nil || len(list) > 0 {
		t.Errorf("without a history: %d messages, %v", len(list), err)
	}
}

// A topic that was forgotten, and a process that was started again, begin with other IDs.
func TestMemoryForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &bus.Memory{History: 10, Idle: time.Minute}
		first, _ := m.Append(t.Context(), "idle", nil)
		sub, _ := m.Subscribe(t.Context(), "used")
		used, _ := m.Append(t.Context(), "used", nil)
		for i := range 1000 {
			time.Sleep(time.Second)
			if _, err := m.Append(t.Context(), fmt.Sprint(i), nil); err != nil {
				t.Fatal(err)
			}
		}
		topics := 0
		for i := range 1000 {
			list, _ := m.Last(t.Context(), fmt.Sprint(i), 1)
			topics += len(list)
		}
		if topics > 200 {
			t.Errorf("%d topics are kept, 60 of them were used within the last minute", topics)
		}
		if list, err := m.After(t.Context(), "used", used, 1); err != nil || len(list) > 0 {
			t.Errorf("of a topic with a subscription: %d messages, %v", len(list), err)
		}
		sub.Close()
		again, _ := m.Append(t.Context(), "idle", nil)
		if lost(t, m, "idle", first) != -1 || first == again {
			t.Errorf("a topic that was forgotten has the ID %s again, as %s", again, first)
		}
		if next := (&bus.Memory{History: 10}); lost(t, next, "idle", again) != -1 {
			t.Error("another process knows the message")
		}
	})
}

// Streams says so if messages were trimmed, or if Redis has lost its data.
func TestStreamsHistoryGap(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	s := &bus.Streams{Client: client, MaxLen: 10, Timeout: patience}
	first, err := s.Append(t.Context(), "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		numbers(t, s, "a", 1, 100)
	}
	lost(t, s, "a", first)
	lost(t, s, "a", "0")
	list, err := s.Last(t.Context(), "a", 1)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d messages, %v", len(list), err)
	}
	client.FlushAll(t.Context())
	lost(t, s, "a", list[0].ID)
	numbers(t, s, "a", 1, 3)
	lost(t, s, "a", list[0].ID)
	if list, err := s.After(t.Context(), "a", "0", 10); err != nil || len(list) != 3 {
		t.Errorf("got %d messages, %v", len(list), err)
	}
}

// The copies that a repeated Publish leaves behind are no messages, wherever a page ends.
func TestStreamsHistoryCopies(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	s := &bus.Streams{Client: client, Timeout: patience}
	const key = "limpet:bus:a"
	for _, number := range []string{"1", "2", "2", "2", "1", "3", "3", "4"} {
		client.Do(t.Context(), "xadd", key, "*", "m", "p "+number+" 1", "d", number)
	}
	client.Do(t.Context(), "xadd", key, "*", "other", "field")
	for page := range 4 {
		id, got := "0", ""
		for {
			list, err := s.After(t.Context(), "a", id, page+1)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range list {
				got, id = got+string(m.Data), m.ID
			}
			if len(list) == 0 {
				break
			}
		}
		if got != "1234" {
			t.Errorf("by pages of %d: %s", page+1, got)
		}
	}
}

// A copy of a message from before a subscription began is no message: who has read the
// history has it.
func TestStreamsCopyOfThePast(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	s := &bus.Streams{Client: client, Timeout: patience}
	add := func(number string) {
		const key = "limpet:bus:a"
		id := client.XAdd(t.Context(), &redis.XAddArgs{Stream: key, Values: []string{"m", "p " + number + " 1", "d", number}}).Val()
		client.SPublish(t.Context(), key, id)
	}
	for _, number := range []string{"1", "2", "3"} {
		add(number)
	}
	l := listen(t, s, "a")
	for _, number := range []string{"2", "3", "4"} {
		add(number)
	}
	l.await(t, 4)
	if got := l.got(); got != "[4]" || l.gaps() > 0 {
		t.Errorf("got %s, %v", got, l.errs)
	}
}
