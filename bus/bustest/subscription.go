package bustest

import (
	"context"
	"slices"
	"testing"

	"github.com/limpet-go/limpet/bus"
)

// A subscription fails its test when it doesn't get what it should get.
type subscription struct {
	bus.Subscription
	t *testing.T
}

// subscribe returns a subscription that is closed with the test.
func subscribe(t *testing.T, b bus.Bus, topics ...string) *subscription {
	t.Helper()
	sub, err := b.Subscribe(deadline(t), topics...)
	if err != nil {
		t.Errorf("Subscribe: %v", err) // maybe not the test's goroutine
		panic(err)
	}
	t.Cleanup(func() { sub.Close() })
	return &subscription{sub, t}
}

func add(t *testing.T, sub *subscription, topics ...string) {
	t.Helper()
	if err := sub.Add(deadline(t), topics...); err != nil {
		t.Errorf("Add: %v", err)
	}
}

func remove(t *testing.T, sub *subscription, topics ...string) {
	t.Helper()
	if err := sub.Remove(deadline(t), topics...); err != nil {
		t.Errorf("Remove: %v", err)
	}
}

func publish(t *testing.T, b bus.Bus, topic, data string) {
	t.Helper()
	if err := b.Publish(deadline(t), topic, []byte(data)); err != nil {
		t.Errorf("Publish: %v", err)
	}
}

func (s *subscription) next() bus.Message {
	s.t.Helper()
	m, err := s.Next(deadline(s.t))
	if err != nil {
		s.t.Fatalf("Next: %v", err)
	}
	return m
}

// want wants the next messages to be these.
func (s *subscription) want(topic string, data ...string) {
	s.t.Helper()
	for _, want := range data {
		if m := s.next(); m.Topic != topic || !slices.Equal(m.Data, []byte(want)) {
			s.t.Fatalf("got %.100q on %.100q, want %.100q on %.100q", m.Data, m.Topic, want, topic)
		}
	}
}

// wantAfter wants the next message to be this one. Messages that were published just before
// the subscription began may come first.
func (s *subscription) wantAfter(topic, want string, before ...string) {
	s.t.Helper()
	m := s.next()
	for slices.Contains(before, string(m.Data)) {
		m = s.next()
	}
	if m.Topic != topic || string(m.Data) != want {
		s.t.Fatalf("got %q on %q, want %q on %q", m.Data, m.Topic, want, topic)
	}
}

// deadline returns a context that ends after patience.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
