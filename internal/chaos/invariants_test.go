//go:build unix

package chaos

import (
	"testing"
	"time"
)

// ms returns a time in a history.
func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// TestInvariants has for each invariant a piece of history that breaks it, and one beside
// it that doesn't.
func TestInvariants(t *testing.T) {
	t.Parallel()
	get := func(from, to int, boot, pin string) op {
		return op{client: "plain1", kind: kindGet, n: 1, start: ms(from), end: ms(to), gateway: "g1", status: 200, backend: backendOf(boot), boot: boot, pin: pin}
	}
	failed := func(o op, status int, why string) op {
		o.status, o.backend, o.boot, o.pin, o.err = status, "", "", "", why
		return o
	}
	post := get(0, 50, "a#1", "new")
	post.kind = kindPost
	message := func(n, seq, at int, boot string) op {
		return op{client: "ws1", kind: kindMessage, n: n, start: ms(at), end: ms(at + 5), gateway: "g1", backend: backendOf(boot), boot: boot, session: "s", seq: seq, tunnel: true}
	}
	end := func(at, code int) op {
		return op{client: "ws1", kind: kindEnd, start: ms(at), end: ms(at), gateway: "g1", backend: "a", boot: "a#1", session: "s", tunnel: true, code: code, err: "EOF"}
	}
	poll := func(at, status int) op {
		return op{client: "poll1", kind: kindPoll, start: ms(at), end: ms(at + 5), gateway: "g1", status: status, session: "s", home: "a", err: "failed"}
	}
	kill := fault{kind: faultKill, backend: "a", start: ms(1000), end: ms(1500)}
	drained := []fault{{kind: faultDrain, backend: "a", start: ms(0), end: ms(5000)}, {kind: faultClosed, backend: "a", start: ms(10), end: ms(4000)}}
	for _, tt := range []struct {
		name     string
		ops      []op
		faults   []fault
		executed map[string]int
		want     string // the invariant, "" for none
	}{
		{name: "nothing happens", ops: []op{get(0, 10, "a#1", "new"), get(100, 110, "a#1", "hit")}},
		{name: "slow without a fault", ops: []op{get(0, 600, "a#1", "new")}, want: "silence"},
		{name: "slow by a fault elsewhere", ops: []op{get(0, 10, "b#1", "new"), get(1000, 1600, "b#1", "hit")}, faults: []fault{kill}, want: "silence"},
		{name: "slow by a fault of its home", ops: []op{get(0, 10, "a#1", "new"), get(1000, 1600, "b#1", "moved")}, faults: []fault{kill}},
		{name: "slower than its home's fault allows", ops: []op{get(0, 10, "a#1", "new"), get(1000, 2000, "b#1", "moved")}, faults: []fault{kill}, want: "silence"},
		{name: "503 while others are well", ops: []op{failed(get(0, 10, "", ""), 503, "503")}, want: "answer"},
		{name: "502 for a GET at a dead backend", ops: []op{get(0, 10, "a#1", "new"), failed(get(1000, 1010, "", ""), 502, "502")}, faults: []fault{kill}, want: "answer"},
		{name: "502 for a POST that may have been executed", ops: []op{failed(post, 502, "502")}, faults: []fault{{kind: faultReset, backend: "a", start: ms(10), end: ms(20)}}},
		{name: "502 for a session whose backend has died", ops: []op{poll(1010, 502)}, faults: []fault{kill}, want: "answer"},
		{name: "502 for a session whose backend lives", ops: []op{poll(1010, 502)}, faults: []fault{{kind: faultReset, backend: "a", start: ms(1000), end: ms(1020)}}},
		{name: "a session ends without a fault", ops: []op{end(500, 1012)}, want: "undisturbed"},
		{name: "a session ends with its backend", ops: []op{end(1010, 1012)}, faults: []fault{kill}},
		{name: "a session ends by the other gateway's fault", ops: []op{end(1010, 1012)}, faults: []fault{{kind: faultReset, backend: "a", gateway: "g2", start: ms(1000), end: ms(1100)}}, want: "undisturbed"},
		{name: "no close frame", ops: []op{end(1010, 0)}, faults: []fault{kill}, want: "close frame"},
		{name: "no close frame within a frame", ops: []op{end(1010, 0)}, faults: []fault{{kind: faultCut, backend: "a", start: ms(1000), end: ms(1100)}}},
		{name: "a session at two backends", ops: []op{message(1, 1, 0, "a#1"), message(2, 2, 10, "b#1")}, want: "one backend"},
		{name: "a message twice", ops: []op{message(1, 1, 0, "a#1"), message(2, 3, 10, "a#1")}, want: "order"},
		{name: "an echo twice", ops: []op{{client: "ws1", kind: kindStray, err: "echo 1:1"}}, want: "order"},
		{name: "a pin moves without a fault", ops: []op{get(0, 10, "a#1", "new"), get(100, 110, "b#1", "moved")}, want: "pin"},
		{name: "another stands in without a fault", ops: []op{get(0, 10, "a#1", "new"), get(100, 110, "b#1", "hit")}, want: "pin"},
		{name: "a pin moves from a dead backend", ops: []op{get(0, 10, "a#1", "new"), get(1100, 1110, "b#1", "moved")}, faults: []fault{kill}},
		{name: "a pin moves back", ops: []op{get(0, 10, "a#1", "new"), get(1100, 1110, "b#1", "moved"), get(6000, 6010, "a#2", "hit")}, faults: []fault{kill}, want: "pin"},
		{name: "a new pin on a drained backend", ops: []op{get(1000, 1010, "a#1", "new")}, faults: drained, want: "drain"},
		{name: "a new pin before all know of the drain", ops: []op{get(100, 110, "a#1", "new")}, faults: drained},
		{name: "an old pin on a drained backend", ops: []op{get(1000, 1010, "a#1", "hit")}, faults: drained},
		{name: "a POST twice", ops: []op{post}, executed: map[string]int{"plain1 #1": 2}, want: "once"},
		{name: "a POST once", ops: []op{post}, executed: map[string]int{"plain1 #1": 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			found := check(tt.ops, tt.faults, tt.executed, nil, 0).violations
			if tt.want == "" {
				for _, v := range found {
					t.Errorf("breaks %q: %s", v.invariant, v.what)
				}
				return
			}
			for _, v := range found {
				if v.invariant == tt.want {
					return
				}
			}
			t.Errorf("found %v, want %q", found, tt.want)
		})
	}
}
