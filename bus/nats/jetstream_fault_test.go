package nats_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/limpet-go/limpet/bus"
	natsbus "github.com/limpet-go/limpet/bus/nats"
)

// Messages that are published while the server restarts arrive once each, in order, and
// without a Gap.
func TestJetStreamRestart(t *testing.T) {
	t.Parallel()
	const messages = 300
	s := startServer(t, nil)
	from := &natsbus.JetStream{Conn: connect(t, s.ClientURL()), Timeout: 9 * time.Second}
	to := &natsbus.JetStream{Conn: connect(t, s.ClientURL()), Timeout: 9 * time.Second}
	sub := subscribe(t, to, "a", "quiet")
	at := make(chan int)
	published := make(chan error, 1)
	go func() {
		for i := range messages {
			if i%100 == 50 {
				at <- i
				at <- i
			}
			if err := from.Publish(t.Context(), "a", []byte(strconv.Itoa(i))); err != nil {
				published <- fmt.Errorf("message %d: %w", i, err)
				return
			}
		}
		published <- nil
	}()
	for range messages / 100 {
		select {
		case <-at:
		case err := <-published:
			t.Fatal(err)
		}
		s = restart(t, s, func() { <-at }) // the publisher goes on while there is no server
	}
	for i := range messages {
		want(t, sub, strconv.Itoa(i))
	}
	if err := <-published; err != nil {
		t.Error(err)
	}
	if got := to.Stats(); got.Delivered != messages || got.Gaps != 0 || got.Topics != 2 || got.Away != 0 || got.Disconnects < 3 {
		t.Errorf("%+v", got)
	}
	if got := from.Stats(); got.Published != messages {
		t.Errorf("%+v", got)
	}
}

// Where the history was trimmed before it was read there is a Gap, and the subscription goes
// on behind it.
func TestJetStreamTrimmed(t *testing.T) {
	t.Parallel()
	const messages = 1000
	s := startServer(t, nil)
	b := &natsbus.JetStream{Conn: connect(t, s.ClientURL()), Timeout: patience, MaxLen: 100, Queue: 10}
	sub := subscribe(t, b, "a")
	for i := range messages {
		publish(t, b, "a", strconv.Itoa(i))
	}
	gap, jumps := false, 0
	for last := -1; last < messages-1; {
		data, err := next(t, sub)
		var missing *bus.Gap
		if errors.As(err, &missing) {
			if missing.Lost != -1 || missing.Err == nil || !slices.Equal(missing.Topics, []string{"a"}) {
				t.Errorf("%+v", missing)
			}
			gap = true
			continue
		}
		n, numeric := strconv.Atoi(data)
		if err != nil || numeric != nil || n <= last {
			t.Fatalf("got %q, %v behind %d", data, err, last)
		}
		if n != last+1 {
			if jumps++; !gap {
				t.Fatalf("%d follows %d without a Gap", n, last)
			}
			gap = false
		}
		last = n
	}
	if got := b.Stats(); jumps == 0 || got.Gaps == 0 || got.Delivered >= messages {
		t.Errorf("%d jumps, %+v", jumps, got)
	}
	publish(t, b, "a", "end")
	want(t, sub, "end")
}

// A process that was started again goes on behind the last message that it has dealt with.
func TestJetStreamSubscribeFrom(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	conn := connect(t, s.ClientURL())
	b := &natsbus.JetStream{Conn: conn, Timeout: patience, MaxLen: 5}
	sub := subscribe(t, b, "a")
	var ids []string
	for i := range 5 {
		publish(t, b, "a", fmt.Sprint(i))
		m, err := sub.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.ID)
	}
	again := func(after string) bus.Subscription {
		t.Helper()
		b := &natsbus.JetStream{Conn: conn, Timeout: patience}
		sub, err := b.SubscribeFrom(t.Context(), map[string]string{"a": after})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sub.Close() })
		return sub
	}
	want(t, again("0"), "0", "1", "2", "3", "4")
	want(t, again(ids[1]), "2", "3", "4")
	newest := again("")
	publish(t, b, "a", "5") // trims 0
	want(t, newest, "5")
	want(t, again(ids[4]), "5")
	trimmed := again(ids[0])
	wantGap(t, trimmed)
	want(t, trimmed, "1", "2", "3", "4", "5")
	if _, err := b.SubscribeFrom(t.Context(), map[string]string{"a": "1-0"}); err == nil {
		t.Error("an ID of Redis was accepted")
	}

	// Programs that know nothing of Limpet take part.
	if err := conn.Publish("limpet.a", []byte("foreign")); err != nil {
		t.Fatal(err)
	}
	want(t, newest, "foreign")
	raw, err := conn.SubscribeSync("limpet.a")
	if err != nil {
		t.Fatal(err)
	}
	publish(t, b, "a", "to all")
	if m, err := raw.NextMsg(patience); err != nil || string(m.Data) != "to all" {
		t.Errorf("got %v, %v", m, err)
	}
}

// A topic that is added while NATS is away is there, with a Gap, when it is back.
func TestJetStreamAway(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	conn := connect(t, s.ClientURL())
	b := &natsbus.JetStream{Conn: conn, Timeout: time.Second}
	sub := subscribe(t, b, "a")
	away := conn.StatusChanged(nats.RECONNECTING)
	s = restart(t, s, func() {
		<-away
		if err := sub.Add(t.Context(), "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Add: %v", err)
		}
		if got := b.Stats(); got.Topics != 2 || got.Away != 2 {
			t.Errorf("%+v", got)
		}
	})
	if gap := wantGap(t, sub); !slices.Equal(gap.Topics, []string{"b"}) {
		t.Errorf("%+v", gap)
	}
	publish(t, &natsbus.JetStream{Conn: connect(t, s.ClientURL()), Timeout: patience}, "b", "end")
	want(t, sub, "end")
}

// A stream that there is already is used as it is.
func TestJetStreamOfOthers(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	conn := connect(t, s.ClientURL())
	js, err := conn.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.AddStream(&nats.StreamConfig{Name: "SHOP", Subjects: []string{"shop.>"}, Storage: nats.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
	b := &natsbus.JetStream{Conn: conn, Timeout: patience, Stream: "SHOP", Prefix: "shop."}
	sub := subscribe(t, b, "a")
	publish(t, b, "a", "1")
	want(t, sub, "1")
	if info, err := js.StreamInfo("SHOP"); err != nil || info.Config.Storage != nats.MemoryStorage || info.State.Msgs != 1 {
		t.Errorf("%+v, %v", info, err)
	}
}
