package upgrade_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// timed is a tunnel whose time a test moves on.
type timed struct {
	client, backend *end
	tunnel          *upgrade.Tunnel
	closed          <-chan upgrade.Summary
	pass            func(time.Duration)
}

// inTime runs a test on both engines: on the pump in a bubble, where time is that
// of synctest, and on the loops, whose connections can't be in one.
func inTime(t *testing.T, name string, proxy func() *upgrade.Proxy, test func(t *testing.T, x timed)) {
	bubble(t, name+"/pump", func(t *testing.T) {
		var tunnel *upgrade.Tunnel
		client, backend, closed := open(t, proxy(), upgrade.ConnectOptions{}, func(o *upgrade.Tunnel) { tunnel = o })
		test(t, timed{client, backend, tunnel, closed, func(d time.Duration) {
			<-time.After(d)
			synctest.Wait()
		}})
		client.Close()
		backend.Close()
	})
	onLoops(t, name, proxy, test)
}

// A close frame waits for the end of a frame, but not for ever, and neither do the
// connections for their ends.
func TestTimeLimits(t *testing.T) {
	t.Parallel()
	const moment = time.Second + time.Millisecond // frameTime and discardTime
	hello, late := text("hello", false), text("too late", false)
	plain := func() *upgrade.Proxy { return &upgrade.Proxy{} }
	ended := func(t *testing.T, x timed, by upgrade.Side, code int) {
		t.Helper()
		if s := wait(t, x.closed); s.By != by || s.Code != code {
			t.Errorf("%+v, want the end by %v with %d", s, by, code)
		}
	}
	inTime(t, "frame ends", plain, func(t *testing.T, x timed) {
		x.backend.send(hello[:3])
		x.client.expect(string(hello[:3]))
		x.tunnel.Close(1012, "")
		x.backend.expectCloseFrame(1012, "")
		x.pass(900 * time.Millisecond)
		x.backend.send(append(hello[3:], late...))
		x.client.expect(string(hello[3:]))
		x.client.expectClose(1012, "")
		x.pass(2 * moment) // neither end closes
		ended(t, x, upgrade.SideGateway, 1012)
	})
	inTime(t, "frame hangs", plain, func(t *testing.T, x timed) {
		x.backend.send(hello[:3])
		x.client.expect(string(hello[:3]))
		x.tunnel.Close(1012, "")
		x.backend.expectClose(1012, "")
		x.pass(moment)
		x.client.expectEOF()
		x.pass(moment)
		ended(t, x, upgrade.SideGateway, 1012)
	})
	inTime(t, "half open", plain, func(t *testing.T, x timed) {
		x.client.closeWrite()
		x.backend.expectEOF()
		for range 5 {
			x.pass(20 * time.Second)
			x.backend.send(hello)
			x.client.expect(string(hello))
		}
		x.pass(31 * time.Second)
		x.client.expectEOF()
		ended(t, x, upgrade.SideClient, 0)
	})
	inTime(t, "backend has said goodbye", plain, func(t *testing.T, x timed) {
		bye := string(frame(0x88, string(closing(1000, "")), false))
		x.backend.send([]byte(bye))
		x.client.expect(bye)
		x.backend.closeWrite()
		x.client.expectEOF()
		x.client.send(text("last words", true))
		x.backend.expect(string(text("last words", true)))
		x.pass(moment)
		ended(t, x, upgrade.SideBackend, 1000)
	})
	inTime(t, "message limit while closing", func() *upgrade.Proxy { return &upgrade.Proxy{MessageLimit: 10} }, func(t *testing.T, x timed) {
		head := frame(0x82, strings.Repeat("x", 200), false)[:4]
		x.backend.send(head[:2])
		x.client.expect(string(head[:2]))
		x.tunnel.Close(1012, "")
		x.backend.expectCloseFrame(1012, "")
		x.backend.send(head[2:])
		x.client.expect(string(head[2:]))
		go x.backend.Write([]byte("too long"))
		x.client.expectEOF()
		x.pass(2 * moment)
		ended(t, x, upgrade.SideGateway, 1012)
	})
	inTime(t, "idle", func() *upgrade.Proxy { return &upgrade.Proxy{IdleTimeout: time.Hour} }, func(t *testing.T, x timed) {
		for range 5 { // bytes of either side keep it
			x.pass(40 * time.Minute)
			x.client.send(text("x", true))
			x.backend.expect(string(text("x", true)))
			x.pass(40 * time.Minute)
			x.backend.send(hello)
			x.client.expect(string(hello))
		}
		x.pass(time.Hour)
		x.client.expectCloseFrame(1001, "idle")
		x.backend.expectCloseFrame(1001, "idle")
		x.pass(2 * moment)
		ended(t, x, upgrade.SideGateway, 1001)
	})
}
