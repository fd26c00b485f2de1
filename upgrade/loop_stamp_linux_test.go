package upgrade

import (
	"testing"
	"time"
)

// What a loop knows of the last message of a client is right to the hundredth of a second,
// also where its stamp begins anew.
func TestQuestion(t *testing.T) {
	t.Parallel()
	const turn = (1 << 31) * stampUnit // 248 days
	for _, tt := range []struct{ asked, passed time.Duration }{
		{0, 0},
		{0, time.Second},
		{5 * time.Millisecond, 0},
		{123 * time.Millisecond, 400 * time.Millisecond},
		{time.Hour, 240 * 24 * time.Hour},
		{turn - time.Second, 2 * time.Second},
		{turn, time.Second},
		{2*turn - 5*time.Millisecond, time.Second},
		{3 * turn, 200 * 24 * time.Hour},
	} {
		q, now := questionAt(tt.asked), tt.asked+tt.passed
		for _, q := range []question{q, q | answered} {
			if got, want := q.at(now), tt.asked.Truncate(stampUnit); got != want {
				t.Errorf("asked at %v: %v after %v, want %v", tt.asked, got, tt.passed, want)
			}
		}
	}
	if q := questionAt(0); q == 0 || q&answered != 0 {
		t.Errorf("the first question is %b", q)
	}
}

// A message of the backend's answers those that the client has sent before.
func TestAsked(t *testing.T) {
	l := handLoop(t)
	l.tunnel(t)
	l.lock()
	defer l.mu.Unlock()
	u := l.slots[0]
	u.activate()
	for i, tt := range []struct {
		sent     direction
		at       time.Duration
		answered bool
	}{
		{toClient, 0, false},
		{toBackend, time.Second, false},
		{toBackend, 2 * time.Second, false},
		{toClient, 2 * time.Second, true},
		{toClient, 2 * time.Second, true},
		{toBackend, 5 * time.Second, false},
	} {
		l.now = time.Duration(i) * time.Second
		u.sent(tt.sent)
		if at, answered := u.asked(); at != tt.at || answered != tt.answered {
			t.Errorf("message %d: asked at %v, answered: %v, want %v, %v", i, at, answered, tt.at, tt.answered)
		}
	}
}
