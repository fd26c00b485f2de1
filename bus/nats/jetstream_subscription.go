package nats

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/limpet-go/limpet/bus"
)

// An item is a message, or a Gap if that isn't nil.
type item struct {
	bus.Message
	gap *bus.Gap
}

// A jetSubscription is one subscriber of a [JetStream].
type jetSubscription struct {
	js    *JetStream
	items chan item     // its queue
	done  chan struct{} // closed when it is closed

	mu     sync.Mutex // taken after JetStream.mu where both are held
	places map[string]*jetPlace
	closed error // what Next returns once it is closed
}

// join returns a new subscription without topics. The first one starts watch.
func (j *JetStream) join() *jetSubscription {
	s := &jetSubscription{
		js: j, items: make(chan item, cmp.Or(j.Queue, 1024)), done: make(chan struct{}), places: map[string]*jetPlace{},
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.begun {
		j.begun, j.begin, j.subs = true, j.Conn.Stats().Reconnects, map[*jetSubscription]struct{}{}
	}
	if len(j.subs) == 0 {
		var watching context.Context
		watching, j.stop = context.WithCancel(context.Background())
		go j.watch(watching, j.Conn.StatusChanged(nats.CLOSED, nats.CONNECTED)) // ends with the last subscription
	}
	j.subs[s] = struct{}{}
	return s
}

// leave takes a subscription off the bus; only the first call does. The last subscription stops
// watch.
func (j *JetStream) leave(s *jetSubscription) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, ok := j.subs[s]; !ok {
		return
	}
	delete(j.subs, s)
	if len(j.subs) == 0 {
		j.stop()
	}
}

// watch closes all subscriptions when the connection is closed: the consumers of NATS' client
// would be silent. When it was made again their places look whether the stream still counts as
// it did. It ends with ctx.
func (j *JetStream) watch(ctx context.Context, changed chan nats.Status) {
	defer j.Conn.RemoveStatusListener(changed)
	for !j.Conn.IsClosed() { // which it may have been before there was a listener
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		for _, s := range j.all() {
			s.suspect()
		}
	}
	for _, s := range j.all() {
		s.end(nats.ErrConnectionClosed)
	}
}

// all returns the subscriptions that are open.
func (j *JetStream) all() []*jetSubscription {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Collect(maps.Keys(j.subs))
}

// suspect has all places look whether the stream counts as it did.
func (s *jetSubscription) suspect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.places {
		p.suspect()
	}
}

// Next implements [bus.Subscription].
func (s *jetSubscription) Next(ctx context.Context) (bus.Message, error) {
	select {
	case <-s.done:
		return bus.Message{}, s.closed
	default:
	}
	var it item
	select {
	case it = <-s.items:
	default:
		select {
		case it = <-s.items:
		case <-s.done:
			return bus.Message{}, s.closed
		case <-ctx.Done():
			return bus.Message{}, ctx.Err()
		}
	}
	if it.gap != nil {
		return bus.Message{}, it.gap
	}
	return it.Message, nil
}

// Add implements [bus.Subscription].
func (s *jetSubscription) Add(ctx context.Context, topics ...string) error {
	from := make(map[string]*uint64, len(topics))
	for _, topic := range topics {
		from[topic] = nil
	}
	return s.add(ctx, from)
}

// add subscribes to the topics that are the keys of from: behind the message with that
// number, or behind the newest one if it is nil.
func (s *jetSubscription) add(ctx context.Context, from map[string]*uint64) error {
	ctx, cancel := context.WithTimeout(ctx, s.js.timeout())
	defer cancel()
	var failed error
	for topic, after := range from {
		p, fresh, err := s.enter(topic)
		if err != nil {
			return err
		}
		if fresh {
			p.from = after
			err = p.start(ctx)
			p.started(err)
		} else {
			err = p.await(ctx) // another Add may be at it
		}
		if err != nil && failed == nil {
			failed = fmt.Errorf("bus: JetStream: subscribe to %q: %w", topic, err)
		}
	}
	return failed
}

// enter returns the place of the subscription in a topic, and whether it is a new one.
func (s *jetSubscription) enter(topic string) (p *jetPlace, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.places == nil {
		return nil, false, s.closed
	}
	if p := s.places[topic]; p != nil {
		return p, false, nil
	}
	p = newJetPlace(s, topic)
	s.places[topic] = p
	return p, true, nil
}

// live iterates over the topics of the subscription, and says of each whether its messages
// arrive.
func (s *jetSubscription) live() iter.Seq2[string, bool] {
	return func(yield func(string, bool) bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for topic, p := range s.places {
			if !yield(topic, p.isLive()) {
				return
			}
		}
	}
}

// Remove implements [bus.Subscription]. It returns no error.
func (s *jetSubscription) Remove(_ context.Context, topics ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, topic := range topics {
		if p := s.places[topic]; p != nil {
			delete(s.places, topic)
			p.stop()
		}
	}
	return nil
}

// Close implements [bus.Subscription].
func (s *jetSubscription) Close() error {
	s.end(nil)
	return nil
}

// end closes the subscription, because of an error if that isn't nil.
func (s *jetSubscription) end(why error) {
	s.js.leave(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed != nil {
		return
	}
	if s.closed = bus.ErrClosed; why != nil {
		s.closed = fmt.Errorf("%w: %w", bus.ErrClosed, why)
	}
	for _, p := range s.places {
		p.stop()
	}
	s.places = nil
	close(s.done)
}
