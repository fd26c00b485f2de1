package upgrade_test

import (
	"io"
	"testing"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// A client that takes nothing loses its tunnel, if there is something for it to take. One
// that takes a part now and then keeps it.
func TestStallTimeout(t *testing.T) {
	t.Parallel()
	const chunk = 64 << 10
	fill := func(x timed) { // all buffers between the backend and the client
		for n := 1; n > 0; { // until nothing moves any more
			x.backend.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			n, _ = x.backend.Write(frame(0x82, string(make([]byte, chunk-4)), false)[:chunk-1])
		}
	}
	open := func(t *testing.T, x timed) {
		t.Helper()
		select {
		case s := <-x.closed:
			t.Fatalf("ended: %+v", s)
		default:
		}
	}
	inTime(t, "stalled", func() *upgrade.Proxy { return &upgrade.Proxy{StallTimeout: time.Hour} }, func(t *testing.T, x timed) {
		x.pass(10 * time.Hour)
		x.client.send(text("hello", true)) // to prove that it is open
		x.backend.expect(string(text("hello", true)))
		for range 3 {
			fill(x)
			x.pass(50 * time.Minute)
			open(t, x)
			x.client.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			io.Copy(io.Discard, x.client.r)
		}
		fill(x)
		for range 20 { // a busy machine may still have been filling the buffers
			x.pass(time.Hour)
			x.pass(3 * time.Second) // a close frame has no room
			select {
			case s := <-x.closed:
				if s.By != upgrade.SideGateway || s.Code != 1013 || s.Reason != "client takes nothing" {
					t.Errorf("%+v", s)
				}
				return
			case <-time.After(500 * time.Millisecond):
			}
		}
		t.Error("the tunnel stays")
	})
}
