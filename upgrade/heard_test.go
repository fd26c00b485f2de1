package upgrade_test

import (
	"testing"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

func TestHeard(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		proxy := &upgrade.Proxy{}
		if n, last := proxy.Heard(""); n != 0 || !last.IsZero() {
			t.Fatalf("without tunnels: %d, %v", n, last)
		}
		r, client, backend := pair(t, s, proxy)
		wait(t, r.tunnels)
		until := func(waiting int) (last time.Time) {
			t.Helper()
			for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
				n, at := proxy.Heard("")
				if n == waiting {
					return at
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d tunnels wait, want %d", n, waiting)
				}
			}
		}
		until(1)
		if n, _ := proxy.Heard("other"); n != 0 {
			t.Errorf("another group has %d", n)
		}

		const pause = 100 * time.Millisecond // well above the loop's clock
		time.Sleep(pause)
		client.send(text("up", true))
		backend.expect(string(text("up", true)))
		if d := time.Since(until(1)); d < pause/2 {
			t.Errorf("what the client sends counts: heard %v ago", d)
		}
		if n := r.heard.Load(); n != 0 {
			t.Errorf("what the client sends is counted: %d", n)
		}
		before := time.Now()
		backend.send(text("down", false))
		client.expect(string(text("down", false)))
		if at := until(1); at.Before(before.Add(-pause / 2)) {
			t.Errorf("what the backend sends doesn't count: heard %v before", before.Sub(at))
		}
		if n := r.heard.Load(); n == 0 {
			t.Error("what the backend sends isn't counted")
		}

		// A client that doesn't read: the tunnel doesn't look at its backend.
		flood := make([]byte, 60<<10)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 1000 {
				if _, err := backend.Write(frame(0x82, string(flood), false)); err != nil {
					return
				}
			}
		}()
		until(0)
		backend.reset()
		<-done
		client.reset()
		wait(t, r.closed)

		// The end of a backend ends the waiting at once, though the client goes on.
		_, client, backend = pair(t, s, proxy)
		until(1)
		backend.reset()
		until(0)
		client.expectCloseFrame(1012, "backend lost")
	})
}
