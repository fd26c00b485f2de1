package middleware

import (
	"maps"
	"reflect"
	"strings"
	"testing"
)

// Whatever comes, what is taken makes sense and is passed on as it is.
func FuzzParseNote(f *testing.F) {
	for _, s := range []string{
		`{"v":1,"from":"x"}`, `{"v":2,"from":"x"}`, `{"v":1,"from":"x","close":{"session":"00","code":1008,"reason":"r"}}`,
		`{"v":1,"from":"x","decisions":[{"backend":"a","wish":"off","since":"2026-01-02T15:04:05Z","at":9,"by":"y"},{"backend":"b","wish":"serve","since":"2026-01-02T15:04:05Z","at":10,"by":"x"}]}`,
		`{"v":1,"from":"x","decisions":[{"backend":"a","wish":"drain","since":"2026-01-02T15:04:05.123456789+07:00","within":30000000000,"weight":3,"at":9,"by":"y"}]}`,
		`{"v":1,"from":"x","shares":{"shares":{"stable":99,"canary":1},"at":9,"by":"y"}}`, `{"v":1,"from":"x","shares":{"at":9,"by":"y"}}`, `{"v":1,"from":"x","shares":{"shares":{"":-1},"at":0}}`,
		`{"v":1,"from":"x","decisions":[{"backend":"a","wish":"drain","since":"9999-12-31T23:59:59-23:59","within":-1,"at":-9,"by":""}, 7, null]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := parseNote(data)
		if err != nil {
			return
		}
		for _, d := range n.Decisions {
			if !d.sound() || d.after(d) || !decide(d.Backend, d.wish(), d.At, d.By).wish().Equal(d.wish()) {
				t.Errorf("taken: %+v", d)
			}
		}
		again, err := parseNote(n.encode())
		if err != nil || again.From != n.From || !reflect.DeepEqual(again.Close, n.Close) || len(again.Decisions) != len(n.Decisions) {
			t.Fatalf("%+v became %+v, %v", n, again, err)
		}
		if n.Shares.after(again.Shares) || again.Shares.after(n.Shares) || n.Shares != nil && !maps.Equal(n.Shares.Shares, again.Shares.Shares) {
			t.Errorf("%+v became %+v", n.Shares, again.Shares)
		}
		for i, d := range n.Decisions {
			if a := again.Decisions[i]; !a.wish().Equal(d.wish()) || a.after(d) || d.after(a) || a.Backend != d.Backend {
				t.Errorf("%+v became %+v", d, a)
			}
		}
	})
}

// Several moves are a note that replicas without them ignore. Those that aren't sound are
// left out.
func TestParseNoteOfMoves(t *testing.T) {
	good, bad := moveNote{sessionHash("key"), "b"}, moveNote{"short", "b"}
	n, err := parseNote(note{From: "x", Moves: []moveNote{bad, good}}.encode())
	if err != nil || n.Version != movesVersion || !reflect.DeepEqual(n.Moves, []moveNote{good}) {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := parseNote([]byte(`{"v":2,"from":"x"}`)); err == nil {
		t.Error("a note of version 2 without moves was taken")
	}
}

// A move is remembered for an hour, so what it holds has a limit.
func TestParseNoteOfAMove(t *testing.T) {
	session := sessionHash("key")
	for name, tt := range map[string]struct {
		session, backend string
		taken            bool
	}{
		"to a backend":      {session, "b", true},
		"to any":            {session, "", true},
		"no session":        {"", "b", false},
		"session too short": {session[1:], "b", false},
		"session too long":  {session + "0", "b", false},
		"backend too long":  {session, strings.Repeat("b", maxName+1), false},
	} {
		n := note{From: "x", Move: &moveNote{Session: tt.session, Backend: tt.backend}}
		if _, err := parseNote(n.encode()); (err == nil) != tt.taken {
			t.Errorf("%s: %v", name, err)
		}
	}
}
