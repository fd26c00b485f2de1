package bus

import (
	"context"
	"errors"
	"iter"
)

// All iterates over what [Subscription.Next] returns, until the subscription is closed or
// ctx ends.
//
// A [Gap] comes as an error among the messages, and the iteration goes on behind it. Any
// other error is the last: why the subscription was closed, or the error of ctx. So the
// reason is never lost, and a loop that goes on behind each error ends by itself:
//
//	for m, err := range bus.All(ctx, sub) {
//		if err != nil {
//			log.Print(err)
//			continue
//		}
//		// ...
//	}
//
// All closes nothing. Who breaks out of the loop may iterate again, and gets the messages
// that have come meanwhile. One goroutine at a time may iterate.
func All(ctx context.Context, sub Subscription) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for {
			m, err := Message{}, ctx.Err() // Next may go on while there is something in the queue
			if err == nil {
				m, err = sub.Next(ctx)
			}
			if !yield(m, err) || ended(err) {
				return
			}
		}
	}
}

// ended reports whether err, which Next has returned, is the last one.
func ended(err error) bool {
	var gap *Gap
	return err != nil && !errors.As(err, &gap)
}
