package socketio

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// BenchmarkBroadcast measures what an event costs before Redis has it, and after.
func BenchmarkBroadcast(b *testing.B) {
	type user struct {
		ID   int    `json:"id"`
		Name string `json:"name"`
	}
	m := &message{kind: broadcast, nsp: "/chat", uid: "emitter", target: target{to: []string{"room"}}}
	for _, event := range []struct {
		name string
		args []any
	}{
		{"map", []any{"message", map[string]any{"from": "ann", "text": "hello, everybody", "n": 7, "tags": []any{"a", "b"}}}},
		{"struct", []any{"message", struct {
			From user     `json:"from"`
			Text string   `json:"text"`
			Tags []string `json:"tags"`
		}{user{1, "ann"}, "hello, everybody", []string{"a", "b"}}}},
		{"binary", []any{"file", make([]byte, 1024)}},
	} {
		m.event = event.args
		for name, a := range map[string]Adapter{"current": PubSub{}, "sharded": Sharded{}} {
			b.Run("encode/"+name+"/"+event.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := a.encode(m); err != nil {
						b.Fatal(err)
					}
				}
			})
			frames, err := a.encode(m)
			if err != nil {
				b.Fatal(err)
			}
			b.Run("decode/"+name+"/"+event.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := a.decode("/chat", frames[0].channel, frames[0].data); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// Messages from anywhere cause no panic. What was read can be written and read
// again, unless only another adapter could have sent it.
func FuzzMessage(f *testing.F) {
	names := slices.Sorted(maps.Keys(adapters))
	for _, v := range readVectors(f).Messages {
		for channel := range 3 {
			f.Add(slices.Index(names, v.Adapter), channel, v.Frame.Data)
		}
	}
	f.Fuzz(func(t *testing.T, i, at int, data []byte) {
		a := adapters[names[uint(i)%uint(len(names))]]
		all, answers := a.channels("/chat", "me")
		channels := slices.Concat(all, answers)
		channel := channels[uint(at)%uint(len(channels))]
		m, err := a.decode("/chat", channel, data)
		if err != nil {
			return
		}
		frames, err := a.encode(m)
		if err != nil {
			return
		}
		for _, frame := range frames {
			if frame.entry == nil {
				if _, err := a.decode("/chat", frame.channel, frame.data); err != nil {
					t.Fatalf("%+v: %q: %v", m, frame.data, err)
				}
			}
		}
	})
}

// Entries of a stream cause no panic, and what was read can be written.
func FuzzEntry(f *testing.F) {
	f.Add("3", `{"packet":{"type":2,"data":["hi"]},"opts":{"rooms":["a"]}}`)
	f.Add("8", "gqZwYWNrZXSCpHR5cGUC")
	f.Fuzz(func(t *testing.T, kind, data string) {
		m, err := Streams{}.decodeEntry(map[string]any{"uid": "a", "nsp": "/", "type": kind, "data": data})
		if err != nil {
			return
		}
		if _, err := (Streams{}).encode(m); err != nil && !strings.Contains(err.Error(), "JSON") {
			t.Fatalf("%+v: %v", m, err)
		}
	})
}
