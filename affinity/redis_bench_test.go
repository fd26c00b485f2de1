package affinity_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/internal/redistest"
)

func BenchmarkRedis(b *testing.B) {
	client := redistest.Start(b).Client(b)
	cached := &affinity.Redis{Client: client, Timeout: patience, Fresh: time.Hour}
	asked := &affinity.Redis{Client: client, Timeout: patience, Fresh: -1}
	aged := &affinity.Redis{Client: client, Timeout: patience, Fresh: -1, Age: time.Hour}
	if _, err := cached.Swap(b.Context(), "k", "", "node-1"); err != nil {
		b.Fatal(err)
	}
	for _, bm := range []struct {
		name string
		call func(n int) (string, error)
	}{
		{"load cached", func(int) (string, error) { return cached.Load(b.Context(), "k") }},
		{"load", func(int) (string, error) { return asked.Load(b.Context(), "k") }},
		{"load with age", func(int) (string, error) { return aged.Load(b.Context(), "k") }},
		{"swap", func(n int) (string, error) { return asked.Swap(b.Context(), strconv.Itoa(n), "", "node-1") }},
		{"a bare GETEX", func(int) (string, error) { return client.GetEx(b.Context(), "limpet:pin:k", time.Hour).Result() }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if home, err := bm.call(n); home == "" || err != nil {
					b.Fatal(home, err)
				}
			}
		})
	}
}
