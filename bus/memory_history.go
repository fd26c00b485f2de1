package bus

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A past is what a [Memory] keeps of a topic. It is under memoryTopic.mu.
type past struct {
	// epoch is the first number of all IDs: the time when the topic got its first
	// message, in Unix nanoseconds. So an ID of an earlier process, or from before the
	// topic was forgotten, is never taken for that of another message.
	epoch uint64
	last  uint64    // the number of messages that there ever were, which is the second number of the newest ID
	kept  []Message // the newest ones, of which the one with the number n is at (n-1) % History
	used  time.Time // when the last one came
}

// keep gives a message its ID, and keeps it in place of the one that is too old.
func (p *past) keep(msg *Message, history int) {
	p.used = time.Now()
	if p.epoch == 0 {
		p.epoch = uint64(p.used.UnixNano())
	}
	p.last++
	msg.ID = streamID{p.epoch, p.last}.String()
	if len(p.kept) < history {
		p.kept = append(p.kept, *msg)
	} else {
		p.kept[(p.last-1)%uint64(history)] = *msg
	}
}

// behind returns the messages behind the one with a number, n at most.
func (p *past) behind(number uint64, n, history int) []Message {
	list := make([]Message, min(p.last-number, uint64(max(n, 0))))
	for i := range list {
		list[i] = p.kept[(number+uint64(i))%uint64(history)]
	}
	return list
}

// errForeign says that an ID is none that a topic has given to a message it could keep.
var errForeign = errors.New("the history doesn't know the message")

// after is behind for an ID.
func (p *past) after(id streamID, n, history int) ([]Message, error) {
	trimmed := p.last - uint64(len(p.kept))
	switch {
	case id == streamID{}: // before all messages
	case id.ms != p.epoch || id.n > p.last || id.n == 0:
		return nil, &Gap{Lost: -1, Err: errForeign}
	}
	if id.n < trimmed {
		return nil, &Gap{Lost: int64(trimmed - id.n), Err: errTrimmed}
	}
	return p.behind(id.n, n, history), nil
}

// Append implements [History]. Without a History the ID is empty.
func (m *Memory) Append(ctx context.Context, topic string, data []byte) (id string, err error) {
	err = ctx.Err()
	m.counts.publish(err)
	if err != nil {
		return "", err
	}
	id, gone := m.publish(topic, data)
	for _, sub := range gone {
		sub.leave()
	}
	return id, nil
}

// Last implements [History]. The only error is that of ctx.
func (m *Memory) Last(ctx context.Context, topic string, n int) (list []Message, err error) {
	m.look(topic, func(p *past) {
		n := min(max(n, 0), len(p.kept))
		list = p.behind(p.last-uint64(n), n, m.History)
	})
	return list, ctx.Err()
}

// After implements [History].
func (m *Memory) After(ctx context.Context, topic, id string, n int) (list []Message, err error) {
	from, err := parseStreamID(id)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		m.look(topic, func(p *past) { list, err = p.after(from, n, m.History) })
	}
	if gap, ok := err.(*Gap); ok {
		gap.Topics = []string{topic}
	} else if err != nil {
		err = fmt.Errorf("bus: Memory: history of %q: %w", topic, err)
	}
	return list, err
}

// look calls f with the past of a topic, which is empty if there is no such topic.
func (m *Memory) look(topic string, f func(*past)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t := m.topics[topic]
	if t == nil {
		f(&past{})
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.past)
}

// open returns a topic, and makes it if it isn't there. Each time that the number of topics
// has doubled, those are forgotten that nobody has used for Idle. m.mu is held for writing.
func (m *Memory) open(topic string) *memoryTopic {
	if t := m.topics[topic]; t != nil {
		return t
	}
	if m.topics == nil {
		m.topics = map[string]*memoryTopic{}
	}
	if m.Idle > 0 && len(m.topics) >= max(64, m.sweep) {
		for name, t := range m.topics {
			if len(t.subs) == 0 && time.Since(t.past.used) > m.Idle {
				delete(m.topics, name)
			}
		}
		m.sweep = 2 * len(m.topics)
	}
	t := &memoryTopic{}
	m.topics[topic] = t
	return t
}
