package bus_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/redistest"
)

// numbers publishes from, …, to.
func numbers(t *testing.T, b bus.Bus, topic string, from, to int) {
	t.Helper()
	for n := from; n <= to; n++ {
		if err := b.Publish(t.Context(), topic, strconv.AppendInt(nil, int64(n), 10)); err != nil {
			t.Fatal(err)
		}
	}
}

// got returns what a listener has got.
func (l *listener) got() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprint(l.numbers)
}

// A process that was started again goes on where it was.
func TestStreamsSubscribeFrom(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	s := &bus.Streams{Client: client, Timeout: patience}
	first := listen(t, s, "a", "b")
	numbers(t, s, "a", 1, 3)
	first.await(t, 3)
	first.Close()
	numbers(t, s, "a", 4, 600)

	again := &bus.Streams{Client: client, Queue: 10, Timeout: patience}
	for i, tt := range []struct {
		name, after string
		first       int
	}{
		{"message", first.ids[1], 3},
		{"oldest", "0", 1},
		{"newest", "", 603},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sub, err := again.SubscribeFrom(t.Context(), map[string]string{"a": tt.after, "b": ""})
			if err != nil {
				t.Fatal(err)
			}
			l := listenTo(t, sub)
			numbers(t, s, "a", 601+i, 601+i)
			l.await(t, int64(601+i))
			if l.numbers[0] != int64(tt.first) || len(l.numbers) != 602+i-tt.first || l.gaps() > 0 {
				t.Errorf("got %d messages from %d on, %v", len(l.numbers), l.numbers[0], l.errs)
			}
		})
	}
	for _, id := range []string{"x", "-", "1-x", "1-2-3", "-1"} {
		if _, err := s.SubscribeFrom(t.Context(), map[string]string{"a": id}); err == nil {
			t.Errorf("no error for ID %q", id)
		}
	}
}

// A topic that nobody publishes on any more is forgotten, if that is wanted.
func TestStreamsIdle(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	numbers(t, &bus.Streams{Client: client}, "kept", 1, 2)
	numbers(t, &bus.Streams{Client: client, Idle: time.Hour}, "idle", 1, 2)
	if ttl := client.PTTL(t.Context(), "limpet:bus:kept").Val(); ttl != -1 {
		t.Errorf("%v left without Idle", ttl)
	}
	if ttl := client.PTTL(t.Context(), "limpet:bus:idle").Val(); ttl <= 0 || ttl > time.Hour {
		t.Errorf("%v left of an hour", ttl)
	}
}

// What was trimmed before it was read is counted.
func TestStreamsTrimmed(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	s := &bus.Streams{Client: client, MaxLen: 100, Queue: 10, Timeout: patience}
	numbers(t, s, "a", 1, 1)
	sub, err := s.Subscribe(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	numbers(t, s, "a", 2, 2000)
	if n := client.XLen(t.Context(), "limpet:bus:a").Val(); n < 100 || n > 300 {
		t.Errorf("the history has %d messages", n)
	}
	l := listenTo(t, sub)
	l.await(t, 2000)
	gap := l.awaitGap(t, 1)
	if missing := l.check(t) - 1; gap.Lost != missing || !slices.Equal(gap.Topics, []string{"a"}) || l.gaps() != 1 {
		t.Errorf("%v with %d messages missing", l.errs, missing)
	}

	late, err := s.SubscribeFrom(t.Context(), map[string]string{"a": l.ids[0]})
	if err != nil {
		t.Fatal(err)
	}
	again := listenTo(t, late)
	again.await(t, 2000)
	if gap := again.awaitGap(t, 1); gap.Lost != -1 {
		t.Errorf("%v, want one of an unknown number", gap)
	}
}

// A Redis that has lost its data says so, once, and only to whom it concerns.
func TestStreamsLost(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	s := &bus.Streams{Client: client, Timeout: patience}
	idle, busy := listen(t, s, "idle"), listen(t, s, "busy")
	numbers(t, s, "busy", 1, 3)
	busy.await(t, 3)
	for i, lose := range []func(){
		func() { client.FlushAll(t.Context()) },
		func() { client.FlushAll(t.Context()) },
		func() { server.Kill(); server.Restart(t) },
	} {
		last, _, _ := strings.Cut(busy.ids[len(busy.ids)-1], "-")
		await(t, "another millisecond", func() bool {
			return fmt.Sprint(client.Time(t.Context()).Val().UnixMilli()) > last
		})
		lose()
		numbers(t, s, "busy", 10*i+11, 10*i+13)
		busy.await(t, int64(10*i+13))
		if gap := busy.awaitGap(t, i+1); gap.Lost != -1 {
			t.Errorf("%v", gap)
		}
	}
	numbers(t, s, "idle", 1, 1)
	idle.await(t, 1)
	busy.check(t)
	if idle.gaps() > 0 || busy.gaps() != 3 {
		t.Errorf("gaps: %v and %v", idle.errs, busy.errs)
	}
}

// A message that was repeated, or given up, and comes late nevertheless.
func TestStreamsCopies(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	network := newProxy(t, server.Addr)
	direct := server.Client(t)
	reader := &bus.Streams{Client: direct, Timeout: patience}
	sub := listen(t, reader, "a")
	length := func() int64 { return direct.XLen(t.Context(), "limpet:bus:a").Val() }

	repeats := &bus.Streams{Client: network.client(t), Timeout: patience / 10}
	numbers(t, repeats, "a", 1, 1)
	network.orphan()               // takes number 2, but keeps it
	numbers(t, repeats, "a", 2, 3) // its copy comes behind number 3
	network.hole(false)
	await(t, "the copy", func() bool { return length() == 4 })
	numbers(t, repeats, "a", 4, 4)

	givesUp := &bus.Streams{Client: network.client(t), Timeout: 200 * time.Millisecond}
	await(t, "number 5", func() bool { return givesUp.Publish(t.Context(), "a", []byte("5")) == nil })
	network.orphan()
	network.refuse(true)
	if err := givesUp.Publish(t.Context(), "a", []byte("6")); err == nil {
		t.Error("Publish didn't fail")
	}
	network.refuse(false)
	await(t, "number 7", func() bool { return givesUp.Publish(t.Context(), "a", []byte("7")) == nil })
	before := length()
	network.hole(false)
	await(t, "number 6", func() bool { return length() > before })
	await(t, "number 8", func() bool { return givesUp.Publish(t.Context(), "a", []byte("8")) == nil })

	sub.await(t, 8)
	if want := "[1 2 3 4 5 7 8]"; sub.got() != want {
		t.Errorf("got %s, want %s", sub.got(), want)
	}
	resumed, err := reader.SubscribeFrom(t.Context(), map[string]string{"a": sub.ids[2]})
	if err != nil {
		t.Fatal(err)
	}
	again := listenTo(t, resumed)
	again.await(t, 8)
	if want := "[4 5 7 8]"; again.got() != want {
		t.Errorf("resumed: got %s, want %s", again.got(), want)
	}
}

// Others may add to a stream when they ring, and what isn't a message is skipped.
func TestStreamsForeignEntries(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	s := &bus.Streams{Client: client, Prefix: "p:", Timeout: patience}
	sub := listen(t, s, "a")
	for _, fields := range [][]any{
		{"d", "1"}, {"x", "y"}, {"m", "1 2"}, {"d", "2", "m", "bad"}, {"m", "1 1 1", "d", "3"}, {"m", "1 1 1", "d", "4"}, {"d", "5"},
	} {
		id := client.Do(t.Context(), append([]any{"xadd", "p:a", "*"}, fields...)...).Val()
		client.SPublish(t.Context(), "p:a", id)
	}
	client.SPublish(t.Context(), "p:a", "no ID")
	sub.await(t, 5)
	if want := "[1 2 3 5]"; sub.got() != want {
		t.Errorf("got %s, want %s", sub.got(), want)
	}
	client.Del(t.Context(), "p:a")
	client.Set(t.Context(), "p:a", "not a stream", 0)
	if err := s.Publish(t.Context(), "a", nil); err == nil {
		t.Error("Publish on what isn't a stream didn't fail")
	}
	if _, err := s.Subscribe(t.Context(), "a"); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Subscribe to what isn't a stream: %v", err)
	}
}

// A message that has rung and isn't there, which a failover may have lost, is
// looked for once, and not for ever.
func TestStreamsFalseRing(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	s := &bus.Streams{Client: client, Timeout: patience}
	sub := listen(t, s, "a")
	numbers(t, s, "a", 1, 1)
	sub.await(t, 1)
	client.SPublish(t.Context(), "limpet:bus:a", "99999999999999-0")
	numbers(t, s, "a", 2, 2)
	sub.await(t, 2)
	reads, calm := "", 0
	await(t, "an end of the reading", func() bool {
		now := regexp.MustCompile(`cmdstat_xrange:calls=\d+`).FindString(client.Info(t.Context(), "commandstats").Val())
		if calm++; now != reads {
			reads, calm = now, 0
		}
		return calm == 20
	})
}

// The Gap of a topic that was late takes the place of no message.
func TestStreamsLateAndFull(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	network := newProxy(t, server.Addr)
	s := &bus.Streams{Client: network.client(t), Timeout: patience, Queue: 1}
	reads := listen(t, s, "a")
	full, err := s.Subscribe(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	numbers(t, &bus.Streams{Client: server.Client(t), Timeout: patience}, "a", 1, 1)
	reads.await(t, 1)
	network.hole(true)
	for _, sub := range []bus.Subscription{full, reads} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err := sub.Add(ctx, "late"); err == nil {
			t.Error("Add didn't fail")
		}
		cancel()
	}
	network.cut()
	network.hole(false)
	reads.awaitGap(t, 1)
	if m, err := full.Next(t.Context()); err != nil || string(m.Data) != "1" {
		t.Errorf("got %q, %v", m.Data, err)
	}
	var gap *bus.Gap
	if _, err := full.Next(t.Context()); !errors.As(err, &gap) || gap.Lost != -1 || !slices.Equal(gap.Topics, []string{"late"}) {
		t.Errorf("got %v, want the Gap", err)
	}
}
