package bus

import (
	"errors"
	"fmt"
	"testing"
)

// What overflows is accounted for, gaps too, in its place.
func TestQueueOverflow(t *testing.T) {
	t.Parallel()
	m := func(id string) item { return item{Message: Message{ID: id}} }
	broken := func(lost int64) item {
		return item{gap: &Gap{Lost: lost, Topics: []string{"a"}, Err: errors.New("broken")}}
	}
	for _, tt := range []struct {
		name  string
		items []item
		want  string
	}{
		{"fits", []item{m("1"), m("2"), m("3")}, "1 2 3"},
		{"oldest messages", []item{m("1"), m("2"), m("3"), m("4"), m("5")}, "2 lost, 3 4 5"},
		{"a gap in its place", []item{m("1"), broken(-1), m("2")}, "1 broken(-1 of [a]) 2"},
		{"a gap", []item{m("1"), broken(-1), m("2"), m("3"), m("4")}, "1 lost, broken(-1 of [a]) 2 3 4"},
		{"two gaps", []item{broken(2), m("1"), broken(3), m("2"), m("3"), m("4")}, "1 lost, broken(5 of []) 2 3 4"},
		{"two gaps, one without a number", []item{broken(2), broken(-1), m("2"), m("3"), m("4")}, "broken(-1 of []) 2 3 4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := queue{limit: 3}
			for _, it := range tt.items {
				if !q.push(it) {
					t.Fatal("closed")
				}
			}
			got := ""
			for q.n > 0 || q.lost > 0 || q.gap != nil {
				m, err := q.Next(t.Context())
				var gap *Gap
				switch {
				case err == nil:
					got += " " + m.ID
				case errors.As(err, &gap) && gap.Err == nil:
					got += fmt.Sprintf(" %d lost,", gap.Lost)
				case errors.As(err, &gap):
					got += fmt.Sprintf(" %v(%d of %v)", gap.Err, gap.Lost, gap.Topics)
				}
			}
			if got != " "+tt.want {
				t.Errorf("got%s, want %s", got, tt.want)
			}
		})
	}
}

// More than 1024 messages wait only up to 32 MiB.
func TestQueueBytes(t *testing.T) {
	t.Parallel()
	big := item{Message: Message{Data: make([]byte, manyBytes/defaultQueue)}}
	for _, tt := range []struct {
		name        string
		limit, n    int
		want, bytes int
	}{
		{"small ones", 3000, 3000, 3000, 0},
		{"more than 1024 big ones", 3000, 3000, defaultQueue, manyBytes},
		{"few big ones", 10, 20, 10, 10 * len(big.Data)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := queue{limit: tt.limit}
			for range tt.n {
				it := item{}
				if tt.bytes > 0 {
					it = big
				}
				q.push(it)
			}
			if q.n != tt.want || q.bytes != tt.bytes || q.lost != int64(tt.n-tt.want) {
				t.Errorf("%d messages of %d bytes, %d lost; want %d, %d, %d", q.n, q.bytes, q.lost, tt.want, tt.bytes, tt.n-tt.want)
			}
			for q.n > 0 {
				q.next()
			}
			if q.bytes != 0 {
				t.Errorf("an empty queue counts %d bytes", q.bytes)
			}
		})
	}
}
