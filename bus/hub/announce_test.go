package hub

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/limpet-go/limpet/bus"
)

// Two lists of the same number have the same parts, so that it does no harm if some come of the
// one and the rest of the other.
func TestListsAlike(t *testing.T) {
	t.Parallel()
	memory := &bus.Memory{}
	h, err := New(memory, &Options{Presence: true})
	if err != nil {
		t.Fatal(err)
	}
	for key := range uint64(2*answerPart + 500) {
		h.presence.mu.Lock()
		h.change(h.id, key, &MemberInfo{ID: fmt.Sprint(key), Rooms: []string{}}, nil)
		h.presence.mu.Unlock()
	}
	sub, err := memory.Subscribe(t.Context(), h.topic(nodeKey+"other"))
	if err != nil {
		t.Fatal(err)
	}
	var lists [2][][]byte
	for i := range lists {
		h.announcer.ask("other")
		h.sendLists(t.Context())
		for range 3 {
			msg, err := sub.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			lists[i] = append(lists[i], msg.Data)
		}
	}
	for i := range lists[0] {
		if !bytes.Equal(lists[0][i], lists[1][i]) {
			t.Errorf("part %d differs", i)
		}
	}
}

// A node that has asked several times before its turn has come gets one list.
func TestListOnce(t *testing.T) {
	t.Parallel()
	memory := &bus.Memory{}
	h, err := New(memory, &Options{Presence: true})
	if err != nil {
		t.Fatal(err)
	}
	h.presence.node(h.id)
	topics := []string{h.topic(nodeKey + "one"), h.topic(nodeKey + "other")}
	sub, err := memory.Subscribe(t.Context(), topics...)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		h.announcer.ask("one")
		h.announcer.ask("other")
	}
	h.sendLists(t.Context())
	if err := memory.Publish(t.Context(), topics[0], []byte("end")); err != nil {
		t.Fatal(err)
	}
	for _, want := range append(topics, topics[0]) {
		if msg, err := sub.Next(t.Context()); err != nil || msg.Topic != want {
			t.Errorf("got %+v, %v, want one of %s", msg, err, want)
		}
	}
	if n := memory.Stats().Published; n != 3 {
		t.Errorf("%d messages, want a list for each node", n-1)
	}
}
