// Package bustest tests whether an implementation of [bus.Bus] keeps the promises of that
// interface. Limpet's own pass it, and so should yours:
//
//	func TestBus(t *testing.T) {
//		bustest.TestBus(t, func() bus.Bus { return mine.New(url) }, bustest.Options{Queue: 1024})
//	}
package bustest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/bus"
)

// patience is how long a test waits for what must happen. Nothing is measured by it.
const patience = 30 * time.Second

// Options say what the bus under test can do.
type Options struct {
	// Queue is the number of messages that fit into the queue of a subscription. It
	// must be 256 or more, and a message that doesn't fit must not close the
	// subscription.
	Queue int
	// History says that each message has an ID of its own, and that a subscription
	// that is too slow loses nothing.
	History bool
}

// TestBus runs the conformance tests as subtests of t. Each call of newProcess returns the
// bus as another process would have it. For a bus that stays within one process it returns
// the same one each time.
func TestBus(t *testing.T, newProcess func() bus.Bus, opts Options) {
	t.Helper()
	s := &suite{Options: opts, newProcess: newProcess, run: rand.Uint64()}
	for _, tt := range []struct {
		name string
		test func(*testing.T)
	}{
		{"everybody gets each message once", s.everybody},
		{"messages are not changed", s.unchanged},
		{"names of topics", s.names},
		{"order", s.order},
		{"crowd", s.crowd},
		{"add and remove", s.addRemove},
		{"shared topics", s.shared},
		{"churn", s.churn},
		{"slow subscriber", s.slow},
		{"contexts", s.contexts},
		{"close", s.close},
	} {
		t.Run(tt.name, tt.test)
	}
}

type suite struct {
	Options
	newProcess func() bus.Bus
	run        uint64 // random, so that what other tests have left behind doesn't matter
}

// topic returns a name that only this test uses.
func (s *suite) topic(t *testing.T, name string) string {
	return fmt.Sprintf("%x %s %s", s.run, t.Name(), name)
}

func (s *suite) everybody(t *testing.T) {
	a, b := s.newProcess(), s.newProcess()
	topic, other := s.topic(t, "topic"), s.topic(t, "other")
	subs := []*subscription{
		subscribe(t, a, topic), subscribe(t, a, topic, other), subscribe(t, b, other, topic, topic), subscribe(t, b),
	}
	add(t, subs[3], topic)
	publish(t, a, topic, "from a")
	publish(t, b, topic, "from b")
	publish(t, a, s.topic(t, "of nobody"), "for nobody")
	publish(t, b, topic, "end")
	for _, sub := range subs {
		sub.want(topic, "from a", "from b", "end")
	}
	publish(t, a, other, "other")
	subs[1].want(other, "other")
	subs[2].want(other, "other")
}

func (s *suite) unchanged(t *testing.T) {
	a, b := s.newProcess(), s.newProcess()
	topic := s.topic(t, "")
	sub := subscribe(t, b, topic)
	large := make([]byte, 1<<20)
	for i := range large {
		large[i] = byte(i * 7 / 3)
	}
	for _, data := range []string{"", "\x00", "\r\n", "\xff\xfe", "héllo", string(large)} {
		sent := []byte(data)
		if err := a.Publish(t.Context(), topic, sent); err != nil {
			t.Fatal(err)
		}
		clear(sent) // Publish doesn't keep it
		sub.want(topic, data)
	}
}

func (s *suite) names(t *testing.T) {
	a, b := s.newProcess(), s.newProcess()
	var topics []string
	for _, name := range []string{"", "*", "[ab]?", "{tag}", "{", "}{}", "a b", "\r\n", "\x00\xff", "ü", strings.Repeat("x", 4096)} {
		topics = append(topics, s.topic(t, name))
	}
	sub := subscribe(t, b, topics...)
	for _, topic := range topics {
		publish(t, a, topic, "to "+topic)
		sub.want(topic, "to "+topic)
	}
}

func (s *suite) addRemove(t *testing.T) {
	a, b := s.newProcess(), s.newProcess()
	first, second := s.topic(t, "first"), s.topic(t, "second")
	sub := subscribe(t, b, first)
	add(t, sub, second, second, first)
	publish(t, a, second, "2")
	publish(t, a, first, "1")
	got := map[string]string{}
	for range 2 {
		m := sub.next()
		got[m.Topic] = string(m.Data)
	}
	if got[first] != "1" || got[second] != "2" {
		t.Fatalf("got %q", got)
	}
	remove(t, sub, second, s.topic(t, "never added"))
	publish(t, a, second, "between")
	publish(t, a, first, "3")
	sub.want(first, "3")
	for i := range 20 {
		add(t, sub, second)
		publish(t, a, second, fmt.Sprint(i))
		sub.wantAfter(second, fmt.Sprint(i), "between")
		remove(t, sub, second)
		publish(t, a, second, "between")
	}
}

// shared ends some of the subscriptions to a topic, and then wants the others to go on.
func (s *suite) shared(t *testing.T) {
	a := s.newProcess()
	topic := s.topic(t, "")
	stays, removes, closes := subscribe(t, a, topic), subscribe(t, a, topic), subscribe(t, a, topic)
	remove(t, removes, topic)
	closes.Close()
	publish(t, a, topic, "1")
	stays.want(topic, "1")
	add(t, removes, topic)
	publish(t, a, topic, "2")
	stays.want(topic, "2")
	removes.want(topic, "2")
}

// churn adds and removes topics while another subscription must not miss a message.
func (s *suite) churn(t *testing.T) {
	a, b := s.newProcess(), s.newProcess()
	topic := s.topic(t, "stays")
	sub := subscribe(t, b, topic)
	var wg sync.WaitGroup
	defer wg.Wait()
	for g := range 4 {
		wg.Go(func() {
			for i := range 10 {
				mine := s.topic(t, fmt.Sprint(g%2, i%3)) // two goroutines share it
				other := subscribe(t, b, mine, topic)
				add(t, other, s.topic(t, fmt.Sprint("own", g)))
				remove(t, other, mine)
				other.Close()
			}
		})
	}
	for i := range 100 {
		publish(t, a, topic, fmt.Sprint(i))
		sub.want(topic, fmt.Sprint(i))
	}
}

// slow doesn't read from a subscription until its queue has overflowed.
func (s *suite) slow(t *testing.T) {
	a, b := s.newProcess(), s.newProcess()
	topic := s.topic(t, "")
	slow, quick := subscribe(t, b, topic), subscribe(t, b, topic)
	n := 3*s.Queue + 1
	for i := range n {
		publish(t, a, topic, fmt.Sprint(i))
		quick.want(topic, fmt.Sprint(i))
	}
	var lost int64
	for i := 0; i < n; i++ {
		m, err := slow.Next(deadline(t))
		var gap *bus.Gap
		if errors.As(err, &gap) && gap.Lost > 0 && gap.Err == nil {
			lost += gap.Lost
			i += int(gap.Lost) - 1
			continue
		}
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if want := fmt.Sprint(i); string(m.Data) != want {
			t.Fatalf("got message %s, want %s, with %d lost", m.Data, want, lost)
		}
	}
	if want := int64(n - s.Queue); !s.History && lost != want {
		t.Errorf("%d messages lost, want %d", lost, want)
	} else if s.History && lost != 0 {
		t.Errorf("%d messages lost", lost)
	}
	publish(t, a, topic, "end")
	slow.want(topic, "end")
}

func (s *suite) contexts(t *testing.T) {
	a := s.newProcess()
	topic := s.topic(t, "")
	sub := subscribe(t, a, topic)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Publish(over, topic, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Publish with a canceled context: %v", err)
	}
	if _, err := a.Subscribe(over, topic); !errors.Is(err, context.Canceled) {
		t.Errorf("Subscribe with a canceled context: %v", err)
	}
	if _, err := sub.Next(over); !errors.Is(err, context.Canceled) {
		t.Errorf("Next with a canceled context: %v", err)
	}
	publish(t, a, topic, "1")
	sub.want(topic, "1")

	added := s.topic(t, "added")
	if sub.Add(over, added) != nil { // the topic is wanted all the same
		var gap *bus.Gap
		if _, err := sub.Next(deadline(t)); !errors.As(err, &gap) || !slices.Equal(gap.Topics, []string{added}) {
			t.Errorf("Next behind an Add that has failed: %v, want a Gap", err)
		}
	}
	publish(t, a, added, "added")
	sub.want(added, "added")

	waiting, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := sub.Next(waiting)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v", err)
	}
	publish(t, a, topic, "2")
	sub.want(topic, "2")
}

func (s *suite) close(t *testing.T) {
	a := s.newProcess()
	topic := s.topic(t, "")
	stays, sub := subscribe(t, a, topic), subscribe(t, a, topic)
	done := make(chan error)
	go func() {
		_, err := sub.Next(t.Context())
		done <- err
	}()
	for range 2 {
		if err := sub.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if err := <-done; !errors.Is(err, bus.ErrClosed) {
		t.Errorf("Next: %v", err)
	}
	if _, err := sub.Next(t.Context()); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("Next after Close: %v", err)
	}
	if err := sub.Add(t.Context(), topic); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("Add after Close: %v", err)
	}
	remove(t, sub, topic)
	publish(t, a, topic, "1")
	stays.want(topic, "1")
	stays.Close()
	publish(t, a, topic, "to nobody")
	again := subscribe(t, a, topic)
	publish(t, a, topic, "2")
	again.wantAfter(topic, "2", "1", "to nobody")
}
