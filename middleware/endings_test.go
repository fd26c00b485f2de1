package middleware

import (
	"fmt"
	"testing"
)

// A scan of the polls begins no more endings than there are slots, however late their
// goroutines come to take them. The others would wait in vain, and aren't told again.
func TestEndingsHaveRoom(t *testing.T) {
	t.Parallel()
	e := &endings{}
	var begun []chan struct{}
	for e.room() {
		if len(begun) == endingsAtOnce {
			t.Fatal("there is room for more than may be told at the same time")
		}
		done, _ := e.begin(fmt.Sprint(len(begun)))
		begun = append(begun, done)
	}
	if len(begun) != endingsAtOnce {
		t.Errorf("room for %d, want %d", len(begun), endingsAtOnce)
	}
	e.over(begun[0])
	if !e.room() {
		t.Error("no room, although one is over")
	}
}
