package sockets_test

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

// The poller has no goroutine while no call waits, and a call that waits has one at once.
func TestPollerSleeps(t *testing.T) { // not in parallel: there is one poller
	c, peer := pair(t, "tcp")
	for range 2 {
		go func() {
			time.Sleep(10 * time.Millisecond)
			peer.Write([]byte("x"))
		}()
		if _, err := c.Read(make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(20 * time.Second); polls(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("it stays awake")
			}
		}
	}
}

// polls reports whether there is a poller's goroutine.
func polls() bool {
	stacks := make([]byte, 1<<20)
	return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "(*poller).run(")
}
