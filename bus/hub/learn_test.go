package hub

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// newStudent returns a hub with Presence that knows the node "n".
func newStudent(t *testing.T) *Hub {
	h, err := New(nil, &Options{Presence: true})
	if err != nil {
		t.Fatal(err)
	}
	h.nodes.seen = map[string]*node{"n": {}}
	return h
}

// teach has a hub learn what the node "n" says, as words: "3:+a-b" is announcement 3, by which
// member a has come or changed and b is gone, and "3/0/2:+a" the first of two parts of a list.
func teach(t *testing.T, h *Hub, words string) {
	t.Helper()
	for word := range strings.FieldsSeq(words) {
		head, changes, _ := strings.Cut(word, ":")
		var said news
		if _, err := fmt.Sscanf(head, "%d/%d/%d", &said.Number, &said.Part, &said.Parts); err != nil && said.Parts+said.Part > 0 {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(changes); i += 2 {
			c := memberChange{Key: uint64(changes[i+1])}
			if changes[i] == '+' {
				c.Member = &MemberInfo{ID: changes[i+1 : i+2], Rooms: []string{}}
			}
			said.Members = append(said.Members, c)
		}
		if err := h.learn(&envelope{kind: kindNews, node: "n", payload: marshal(said)}); err != nil {
			t.Fatal(err)
		}
	}
}

// Announcements and lists come in parts, twice, too late or not at all. What is known is
// what the node has said last, without holes.
func TestLearn(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	for n := 3; n <= 27; n++ {
		fmt.Fprintf(&many, " %d:+%c", n, 'a'+n-3)
	}
	for _, tt := range []struct {
		name, said, want string
		number           uint64
		later            int
		behind           bool
	}{
		{"in order", "1:+a 2:+b 3:-a", "b", 3, 0, false},
		{"again", "1:+a 2:-a 1:+a", "", 2, 0, false},
		{"a hole", "1:+a 3:+c 4:+d", "a", 1, 2, true},
		{"one out of order, which no bus does", "1:+a 3:+c 4:+d 2:+b", "a", 1, 3, true}, // a list mends it
		{"a list fills it", "1:+a 3:+x 6:+f 5/0/1:+e", "ef", 6, 0, false},
		{"a list ends within it", "1:+a 6:+f 4/0/1:+e", "e", 4, 1, true},
		{"a list, and what follows", "5/0/1:+a 6:+b", "ab", 6, 0, false},
		{"a list takes away", "1:+a 2:+b 3/0/1:+b", "b", 3, 0, false},
		{"a list of the same number", "1:+a 1/0/1:+a+q", "aq", 1, 0, false},
		{"a list of before", "5/0/1:+a 6:+b 4/0/1:+z", "ab", 6, 0, false},
		{"parts", "5/1/2:+b 5/0/2:+a", "ab", 5, 0, false},
		{"a part twice", "5/0/2:+a 5/0/2:+a", "", 0, 0, false},
		{"parts of two lists", "5/0/2:+a 6/1/2:+b", "", 0, 0, false},
		{"parts of two lists, then the rest", "5/0/2:+a 6/1/2:+b 6/0/2:+c", "bc", 6, 0, false},
		{"parts of lists of other lengths", "5/1/2:+x 5/0/3:+a 5/2/3:+b", "", 0, 0, false},
		{"too many to keep", "1:+z" + many.String(), "z", 1, laterLimit, true},
		{"the newest are kept", "1:+z" + many.String() + " 7/0/1:+z", "fghijklmnopqrstuvwxyz", 27, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newStudent(t)
			teach(t, h, tt.said)
			a := h.presence.nodes["n"]
			var known string
			for _, key := range slices.Sorted(maps.Keys(a.members)) {
				known += string(rune(key))
			}
			if known != tt.want || a.number != tt.number || len(a.later) != tt.later || a.behind.IsZero() == tt.behind {
				t.Errorf("knows %q up to %d, with %d later ones, behind since %v; want %q, %d, %d, %v",
					known, a.number, len(a.later), a.behind, tt.want, tt.number, tt.later, tt.behind)
			}
		})
	}
}

// A hub learns nothing from nodes that it doesn't know, and without Presence. It says what makes
// no sense.
func TestLearnNothing(t *testing.T) {
	t.Parallel()
	h := newStudent(t)
	said := marshal(news{Number: 1})
	if err := h.learn(&envelope{node: "n", payload: []byte("{")}); err == nil {
		t.Error("no error")
	}
	h.announcedUpTo("n", 0)
	if err := h.learn(&envelope{node: "stranger", payload: said}); err != nil {
		t.Error(err)
	}
	h.opts.Presence = false
	h.announcedUpTo("n", 5)
	if err := h.learn(&envelope{node: "n", payload: said}); err != nil {
		t.Error(err)
	}
	if n := len(h.presence.nodes); n != 0 {
		t.Errorf("knows of %d nodes", n)
	}
}

// A node is asked for a list once it is sure that an announcement is missing, and again only
// after a while.
func TestLearnAsks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, tt := range []struct {
		name string
		announced
		want bool
	}{
		{"complete", announced{number: 3, last: 3}, false},
		{"may be on its way", announced{number: 1, last: 3, behind: now.Add(-999 * time.Millisecond)}, false},
		{"has had its time", announced{number: 1, last: 3, behind: now.Add(-time.Second)}, true},
		{"one behind it has come", announced{number: 1, last: 3, behind: now, later: []news{{}}}, true},
		{"nothing has ever come", announced{last: 3, behind: now}, true},
		{"asked a moment ago", announced{last: 3, behind: now, asked: now.Add(-time.Second)}, false},
		{"asked long ago", announced{last: 3, behind: now, asked: now.Add(-2 * time.Second)}, true},
	} {
		p := presence{nodes: map[string]*announced{"n": &tt.announced}}
		if got := p.missing(now, 2*time.Second); (len(got) == 1) != tt.want {
			t.Errorf("%s: asks %q", tt.name, got)
		}
		if got := p.missing(now, 2*time.Second); len(got) > 0 {
			t.Errorf("%s: asks twice", tt.name)
		}
	}
	h := newStudent(t)
	h.announcedUpTo("n", 5)
	first := h.presence.nodes["n"].behind
	teach(t, h, "7:+a")
	h.announcedUpTo("n", 6)
	if a := h.presence.nodes["n"]; first.IsZero() || a.behind != first || a.last != 7 {
		t.Errorf("behind since %v, at first %v; %d is the last", a.behind, first, a.last)
	}
}
