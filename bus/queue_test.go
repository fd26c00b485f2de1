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
