package socketio

import "testing"

// What an event costs before it goes to Redis, and behind it.
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
