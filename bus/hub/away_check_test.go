package hub_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// An arrival is something that a client was told, as an event of client.js has it: a message,
// or that it has joined, left or missed something.
type arrival struct {
	Type      string
	Room      string
	Data      string // of a message: a series and a number, "series number"
	Recovered bool
}

// sent are the messages whose Send has returned no error. Others may have been sent or not.
//
// What one publisher sends to one room is a series, numbered from 1 on. Its name ends with a
// slash and the room.
type sent struct {
	mu      sync.Mutex
	numbers map[string][]int // by series, ascending
}

func (s *sent) add(series string, number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.numbers == nil {
		s.numbers = make(map[string][]int)
	}
	s.numbers[series] = append(s.numbers[series], number)
}

// between returns how many numbers of a series there are behind one and before another one.
func (s *sent) between(series string, from, to int) int {
	list := s.numbers[series]
	first, _ := slices.BinarySearch(list, from+1)
	end, _ := slices.BinarySearch(list, to)
	return max(0, end-first)
}

const endless = 1 << 30 // a number behind all that are sent

// check returns what is wrong with what a client was told that was in all rooms before
// anything was sent. Each message has to come once, those of each series in order, and where
// some are missing the client has to be told so: behind the message before and ahead of the
// one behind. A room that is joined again without "missed" must have been recovered.
func (s *sent) check(list []arrival) (wrong []string) {
	fault := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	last := make(map[string]int)
	seen := make(map[string]bool)
	told := make(map[string]bool) // that messages of a series are missing behind the last one
	in := make(map[string]bool)   // the rooms that were joined at least once
	warned := make(map[string]bool)
	for _, a := range list {
		switch a.Type {
		case "missed":
			warned[a.Room] = true
			for series := range s.numbers {
				told[series] = told[series] || strings.HasSuffix(series, "/"+a.Room)
			}
		case "joined":
			if in[a.Room] && !a.Recovered && !warned[a.Room] {
				fault("room %s was joined again, neither recovered nor with anything missed", a.Room)
			}
			in[a.Room], warned[a.Room] = true, false
		case "message":
			series, n, _ := strings.Cut(a.Data, " ")
			number, _ := strconv.Atoi(n)
			switch missing := s.between(series, last[series], number); {
			case !strings.HasSuffix(series, "/"+a.Room):
				fault("%q came to room %s", a.Data, a.Room)
			case seen[a.Data]:
				fault("%q came twice", a.Data)
			case number <= last[series]:
				fault("%q came behind %d", a.Data, last[series])
			case missing > 0 && !told[series]:
				fault("%d messages before %q are missing, and the client wasn't told", missing, a.Data)
			}
			seen[a.Data], told[series], last[series] = true, false, number
		}
	}
	for series := range s.numbers {
		if missing := s.between(series, last[series], endless); missing > 0 && !told[series] {
			fault("the last %d messages of %s are missing, and the client wasn't told", missing, series)
		}
	}
	return wrong
}

// inOneOrder reports whether the messages to each room that two clients have both got came to
// both in one order.
func inOneOrder(one, other []arrival) bool {
	place := make(map[string]int)
	for i, a := range one {
		if a.Type == "message" {
			place[a.Data] = i + 1
		}
	}
	last := make(map[string]int) // by room
	for _, a := range other {
		at := place[a.Data]
		if at == 0 || a.Type != "message" {
			continue
		}
		if at < last[a.Room] {
			return false
		}
		last[a.Room] = at
	}
	return true
}

// The check finds what must not be.
func TestAwayCheck(t *testing.T) {
	t.Parallel()
	s := &sent{}
	for _, n := range []int{1, 2, 4, 5} { // nobody knows of 3
		s.add("p/a", n)
	}
	s.add("p/b", 1)
	for _, tt := range []struct{ name, list, want string }{
		{"all", "joined message:1 message:2 joined:recovered message:3 message:4 message:5", ""},
		{"without the one in doubt", "joined message:1 message:2 message:4 message:5", ""},
		{"twice", "message:1 message:2 message:2 message:3 message:4 message:5", "came twice"},
		{"not in order", "message:1 message:4 message:2 missed message:5", "came behind"},
		{"a hole", "message:1 message:4 message:5", "before"},
		{"a hole that was told", "message:1 missed joined message:4 message:5", ""},
		{"a hole that was told before it", "missed message:1 message:4 message:5", "before"},
		{"a hole that was told behind it", "message:1 message:4 missed message:5", "before"},
		{"a hole at the beginning", "message:2 message:4 message:5", "before"},
		{"a hole at the end", "message:1 message:2 message:4", "the last"},
		{"one at the end that was told", "message:1 message:2 message:4 missed", ""},
		{"neither recovered nor missed", "joined message:1 joined message:2 message:4 message:5", "neither"},
	} {
		list := []arrival{{Type: "message", Room: "b", Data: "p/b 1"}}
		for word := range strings.FieldsSeq(tt.list) {
			what, more, _ := strings.Cut(word, ":")
			list = append(list, arrival{Type: what, Room: "a", Data: "p/a " + more, Recovered: more == "recovered"})
		}
		wrong := strings.Join(s.check(list), "; ")
		if (wrong == "") != (tt.want == "") || !strings.Contains(wrong, tt.want) {
			t.Errorf("%s: found %q, want %q", tt.name, wrong, tt.want)
		}
	}
	one := []arrival{{Type: "message", Room: "a", Data: "1"}, {Type: "message", Room: "a", Data: "2"}, {Type: "message", Room: "b", Data: "3"}}
	if !inOneOrder(one, []arrival{one[2], one[0], one[1]}) || inOneOrder(one, []arrival{one[1], one[0]}) {
		t.Error("the order of two clients is judged wrong")
	}
}
