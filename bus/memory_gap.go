package bus

import (
	"maps"
	"slices"
)

// Gap puts a [Gap] into the queues of all subscriptions that have some of its Topics, or of
// all that have any topic if these are nil. Each gets one with the topics of its own. It
// never waits.
//
// It is for a bus of another kind whose subscriptions in this process are those of a
// Memory, as in package bus/nats, and for the tests of what a subscriber does about a Gap.
func (m *Memory) Gap(gap *Gap) {
	for _, sub := range m.gap(gap) {
		sub.leave()
	}
}

// gap returns the subscriptions that are closed, as publish does.
func (m *Memory) gap(gap *Gap) (gone []*memorySubscription) {
	m.mu.Lock() // so that no message comes between the Gaps of one subscription's topics
	defer m.mu.Unlock()
	topics := gap.Topics
	if topics == nil {
		topics = slices.Collect(maps.Keys(m.topics))
	}
	due := map[*memorySubscription]*Gap{}
	for _, topic := range slices.Compact(slices.Sorted(slices.Values(topics))) {
		t := m.topics[topic]
		if t == nil {
			continue
		}
		for _, sub := range t.subs {
			if due[sub] == nil {
				due[sub] = &Gap{Lost: gap.Lost, Err: gap.Err}
			}
			if gap.Topics != nil {
				due[sub].Topics = append(due[sub].Topics, topic)
			}
		}
	}
	for sub, its := range due {
		if sub.push(item{gap: its}) {
			m.counts.gaps.Add(1)
		} else {
			gone = append(gone, sub)
		}
	}
	return gone
}
