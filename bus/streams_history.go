package bus

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Append implements [History]. If its connection breaks, several copies of the message may
// come into the stream, and the ID may be that of another copy than the one that
// subscribers get: what is behind the one is behind the other, too.
func (s *Streams) Append(ctx context.Context, topic string, data []byte) (id string, err error) {
	defer s.counts.publishTimes.since(time.Now())
	id, err = s.publish(ctx, topic, data)
	s.counts.publish(err)
	if err != nil {
		return "", fmt.Errorf("bus: Streams: publish on %q: %w", topic, err)
	}
	return id, nil
}

// Last implements [History].
func (s *Streams) Last(ctx context.Context, topic string, n int) ([]Message, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	entries, err := s.back(ctx, topic, "+", n)
	if err != nil {
		return nil, err
	}
	return messages(topic, entries, &tracker{}), nil
}

// After implements [History].
func (s *Streams) After(ctx context.Context, topic, id string, n int) ([]Message, error) {
	at, err := parseStreamID(id)
	if err != nil {
		return nil, fmt.Errorf("bus: Streams: history of %q: %w", topic, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	before, err := s.back(ctx, topic, at.String(), recalled)
	if err != nil {
		return nil, err
	}
	var seen tracker
	messages(topic, before, &seen)
	from := position{id: at, entry: at != streamID{}, added: -1}
	if !from.entry {
		from.added = 0
	}
	for {
		p := readPages(ctx, s.Client, []request{{s.key(topic), from}}, max(n, 1))[0]
		switch list := messages(topic, p.entries, &seen); {
		case p.err != nil:
			return nil, fmt.Errorf("bus: Streams: history of %q: %w", topic, p.err)
		case p.gap != nil:
			p.gap.Topics = []string{topic}
			return nil, p.gap
		case len(list) > 0 || !p.more:
			return list[:min(max(n, 0), len(list))], nil
		}
		for _, e := range p.entries { // all of them are copies, or no messages
			from = from.next(e)
		}
	}
}

// back returns n entries of a topic, the last of which is the one with an ID, or the newest
// one before. The oldest is the first.
func (s *Streams) back(ctx context.Context, topic, id string, n int) (entries []entry, err error) {
	if err := s.ready(ctx); err != nil {
		return nil, fmt.Errorf("bus: Streams: history of %q: %w", topic, err)
	}
	if n <= 0 {
		return nil, nil
	}
	raw, err := s.Client.Do(ctx, "xrevrange", s.key(topic), id, "-", "count", n).Slice()
	for i := 0; i < len(raw) && err == nil; i++ {
		var e entry
		e, err = parseEntry(raw[i])
		entries = append(entries, e)
	}
	if err != nil {
		return nil, fmt.Errorf("bus: Streams: history of %q: %w", topic, err)
	}
	slices.Reverse(entries)
	return entries, nil
}

// messages returns the messages among entries, without those that are copies of others.
func messages(topic string, entries []entry, seen *tracker) (list []Message) {
	for _, e := range entries {
		if e.data != nil && (e.mark == nil || seen.first(*e.mark, e.id.ms)) {
			list = append(list, Message{Topic: topic, ID: e.text, Data: e.data})
		}
	}
	return list
}
