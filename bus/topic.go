package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
)

// A Topic is the name of a topic whose messages are values of type T in JSON, so that those
// who publish and those who subscribe can't disagree about the type:
//
//	const orders bus.Topic[Order] = "orders"
//
//	err := orders.Publish(ctx, b, Order{ID: 7})
//
//	sub, err := b.Subscribe(ctx, string(orders))
//	// ...
//	for order, err := range orders.All(ctx, sub) {
//
// The message is the JSON alone, with no envelope around it: programs in other languages
// read and write it as it is. What goes along with a value, such as the context of a trace,
// is a field of T.
type Topic[T any] string

// Publish publishes v. It returns the error of [json.Marshal] or of the bus.
func (t Topic[T]) Publish(ctx context.Context, b Bus, v T) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("bus: message on %q: %w", string(t), err)
	}
	return b.Publish(ctx, string(t), data)
}

// Decode returns the value of a message. It is what a subscriber to several topics, or one
// that needs the ID of the message, calls in a loop over [All]. A message of another topic
// is an error.
func (t Topic[T]) Decode(m Message) (v T, err error) {
	if m.Topic != string(t) {
		return v, fmt.Errorf("bus: message on %q isn't one of topic %q", m.Topic, string(t))
	}
	if err := json.Unmarshal(m.Data, &v); err != nil {
		return v, fmt.Errorf("bus: message on %q: %w", m.Topic, err)
	}
	return v, nil
}

// All iterates over the values of a subscription to this topic alone, in the way of the
// function [All]. A message that isn't a T in JSON comes as an error, and the iteration
// goes on behind it: a loop that ends at the first error which isn't a [Gap] would let a
// foreign message end it.
func (t Topic[T]) All(ctx context.Context, sub Subscription) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for m, err := range All(ctx, sub) {
			var v T
			if err == nil {
				v, err = t.Decode(m)
			}
			if !yield(v, err) {
				return
			}
		}
	}
}
