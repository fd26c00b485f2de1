package middleware

import (
	"testing"
	"testing/synctest"
	"time"
)

// A move is remembered for its time, also when one that is forgotten before is added behind it.
func TestMovesUntil(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s moves
		now := time.Now()
		s.add(sessionHash("new"), &move{to: "a", until: now.Add(time.Hour)})
		s.inherit([]movedClient{{Session: sessionHash("old"), To: "b", Until: now.Add(time.Minute)}})
		time.Sleep(2 * time.Minute)
		if s.of("old") != nil {
			t.Error("the old move isn't forgotten")
		}
		if s.of("new") == nil {
			t.Error("the new move is forgotten")
		}
		if got, want := s.last(), now; !got.Equal(want) {
			t.Errorf("the latest turn is %v, want %v", got, want)
		}
	})
}
