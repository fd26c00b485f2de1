//go:build linux

package main

import (
	"testing"
	"time"
)

// However often a waiting room is closed and opened, one timer moves its time.
func TestWaitingRoomHasOneTimer(t *testing.T) {
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	timers := func() (n int) {
		for _, c := range l.conns {
			if c != nil {
				n++
			}
		}
		return n
	}
	r := &waitingRoom{loop: l}
	for range 3 {
		r.keep()
		r.release()
	}
	if n := timers(); n != 1 {
		t.Errorf("%d timers within one tick", n)
	}
	r.keep()
	for end := time.Now().Add(5 * time.Second); timers() > 0 && time.Now().Before(end); {
		if err := l.turn(time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if n := timers(); n != 0 {
		t.Errorf("%d timers of a closed room", n)
	}
	if r.release(); timers() != 1 {
		t.Errorf("%d timers after it was opened again", timers())
	}
}
