package bustest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/limpet-go/limpet/bus"
)

// order publishes on several topics, from several goroutines of two processes.
func (s *suite) order(t *testing.T) {
	const publishers, topics, each = 4, 3, 20
	buses := []bus.Bus{s.newProcess(), s.newProcess()}
	var names []string
	for i := range topics {
		names = append(names, s.topic(t, fmt.Sprint(i)))
	}
	subs := []*subscription{subscribe(t, buses[0], names...), subscribe(t, buses[0], names...), subscribe(t, buses[1], names...)}
	var wg sync.WaitGroup
	defer wg.Wait()
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				for _, name := range names {
					publish(t, buses[p%2], name, fmt.Sprintf("%d %d", p, i))
				}
			}
		})
	}
	for _, sub := range subs {
		next := map[string]int{}
		ids := map[string]string{}
		for range publishers * topics * each {
			m := sub.next()
			var p, i int
			fmt.Sscan(string(m.Data), &p, &i)
			from := fmt.Sprintf("%d on %q", p, m.Topic)
			if i != next[from] {
				t.Fatalf("message %d of publisher %s, want %d", i, from, next[from])
			}
			next[from]++
			if s.History && (m.ID == "" || m.ID == ids[m.Topic]) {
				t.Fatalf("ID %q behind %q", m.ID, ids[m.Topic])
			}
			ids[m.Topic] = m.ID
		}
	}
}

// crowd publishes on one topic from many goroutines at once, and gives up some of the messages
// at any time. What was published arrives once, in the order of its publisher. What was given
// up may arrive once; on a bus with a history that is in its place, too.
func (s *suite) crowd(t *testing.T) {
	const publishers, each = 16, 12 // fewer than fit into a queue
	buses := []bus.Bus{s.newProcess(), s.newProcess()}
	topic := s.topic(t, "")
	sub := subscribe(t, s.newProcess(), topic)
	var taken [publishers][each]bool // Publish has returned no error
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				ctx, cancel := context.WithCancel(deadline(t))
				if givesUp := i%3 == 2; givesUp {
					go cancel()
				}
				err := buses[p%2].Publish(ctx, topic, fmt.Appendf(nil, "%d %d", p, i))
				cancel()
				if taken[p][i] = err == nil; err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("Publish: %v", err)
				}
			}
		})
	}
	wg.Wait()
	publish(t, buses[0], topic, fmt.Sprint(publishers, 0))
	missing := 1
	for p := range publishers {
		for i := range each {
			if taken[p][i] {
				missing++
			}
		}
	}
	var last [publishers + 1]int
	seen := map[string]bool{}
	for missing > 0 {
		m := sub.next()
		if seen[string(m.Data)] {
			t.Fatalf("message %q came twice", m.Data)
		}
		seen[string(m.Data)] = true
		var p, i int
		fmt.Sscan(string(m.Data), &p, &i)
		counts := p == publishers || taken[p][i]
		if counts {
			missing--
		}
		if counts || s.History {
			if i < last[p] {
				t.Fatalf("message %d of publisher %d behind %d", i, p, last[p])
			}
			last[p] = i
		}
	}
}
