package nats

import (
	"strings"
	"testing"
)

func TestSubject(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 201)
	seen := map[string]string{}
	for _, tt := range []struct{ topic, want string }{
		{"orders", "p.orders"},
		{"orders.new", "p.orders.new"},
		{"hub:room/1", "p.hub:room/1"},
		{"", "p.%"},
		{".", "p.%2E"},
		{"..", "p.%2E%2E"},
		{".a..b.", "p.%2Ea.%2Eb%2E"},
		{"*", "p.%2A"},
		{"a.>", "p.a.%3E"},
		{"100%", "p.100%25"},
		{"%", "p.%25"},
		{"a b\r\n\x00", "p.a%20b%0D%0A%00"},
		{"ü", "p.%C3%BC"},
		{long[:200], "p." + long[:200]},
		{long, "p.%~84a0678c90937f5dcf9994d5866668da6b995109c8ad845410559b48a4ecafed"},
	} {
		got := subject("p.", tt.topic)
		if got != tt.want {
			t.Errorf("%.20q: got %s, want %s", tt.topic, got, tt.want)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%.20q and %.20q have the same subject", tt.topic, other)
		}
		seen[got] = tt.topic
	}
}
