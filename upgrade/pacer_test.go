package upgrade_test

import (
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// A client may send a burst, and then as many messages a second as the rate allows. What has
// come is remembered while the tunnel is idle.
func TestMessageRate(t *testing.T) {
	t.Parallel()
	// The rate is so low that the time which a busy machine takes doesn't matter.
	proxy := func() *upgrade.Proxy { return &upgrade.Proxy{MessageRate: 1, MessageBurst: 60} }
	message := string(text("hello", true))
	inTime(t, "one by one", proxy, func(t *testing.T, x timed) {
		for range 60 {
			x.client.send([]byte(message))
			x.backend.expect(message)
		}
		x.pass(30 * time.Second)
		for range 30 {
			x.client.send([]byte(message))
			x.backend.expect(message)
		}
		go x.client.Write([]byte(strings.Repeat(message, 30)))
		for op := byte(0); op != 0x88; { // a slow machine may have let some more pass
			var err error
			if op, _, err = readFrame(x.backend.r); err != nil || op != 0x88 && op != 0x81 {
				t.Fatalf("got %x, %v", op, err)
			}
		}
		x.client.expectCloseFrame(1008, "too many messages")
		x.client.Close()
		x.backend.Close()
		if s := wait(t, x.closed); s.By != upgrade.SideGateway || s.Code != 1008 || s.MessagesToBackend < 90 || s.MessagesToBackend > 110 {
			t.Errorf("%+v", s)
		}
	})
	inTime(t, "a pause earns no more than a burst", proxy, func(t *testing.T, x timed) {
		x.pass(24 * time.Hour)
		go x.client.Write([]byte(strings.Repeat(message, 100)))
		x.backend.expect(strings.Repeat(message, 60))
		x.client.expectCloseFrame(1008, "too many messages")
		x.client.Close()
		x.backend.Close()
		wait(t, x.closed)
	})
	inTime(t, "steady", proxy, func(t *testing.T, x timed) {
		for range 600 {
			x.client.send([]byte(message))
			x.backend.expect(message)
			x.pass(time.Second)
		}
		x.client.closeWrite()
		x.backend.expectEOF()
	})
}

// What counts: each frame, whatever it is in one packet with, but no close frame. Nothing of
// the first one too many passes.
func TestMessageRateCounts(t *testing.T) {
	ping := string(frame(0x89, "", true))
	for name, one := range map[string]string{
		"messages":  string(text("hello", true)),
		"big":       string(text(strings.Repeat("x", 60_000), true)),
		"pings":     ping,
		"pongs":     string(frame(0x8a, "x", true)),
		"fragments": string(frame(0x01, "x", true)) + strings.Repeat(string(frame(0x00, "", true)), 9),
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s setup) {
				r, client, backend := pair(t, s, &upgrade.Proxy{MessageRate: 1, MessageBurst: 10})
				fits := strings.Repeat(one, 10)
				if name == "fragments" {
					fits = one
				}
				go client.Write([]byte(fits + string(frame(0x80+9, "over", true))))
				backend.expect(fits)
				backend.expectCloseFrame(1008, "too many messages")
				client.expectCloseFrame(1008, "too many messages")
				backend.Close()
				client.Close()
				r.wantSummary(upgrade.SideGateway, 1008)
			})
		})
	}
	t.Run("close frame", func(t *testing.T) {
		each(t, func(t *testing.T, s setup) {
			r, client, backend := pair(t, s, &upgrade.Proxy{MessageRate: 1, MessageBurst: 10})
			client.send([]byte(strings.Repeat(ping, 10) + string(frame(0x88, string(closing(1000, "")), true))))
			backend.expect(strings.Repeat(ping, 10))
			backend.expectCloseFrame(1000, "")
			backend.Close()
			client.Close()
			r.wantSummary(upgrade.SideClient, 1000)
		})
	})
}

// A frame that can't be counted doesn't pass, though there is no MessageLimit. The backend is
// held to nothing.
func TestMessageRateFailsClosed(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		r, client, backend := pair(t, s, &upgrade.Proxy{MessageRate: 1, MessageBurst: 10})
		flood := strings.Repeat(string(text("x", false)), 1000) + string(frame(0x83, "no opcode", false))
		backend.send([]byte(flood))
		client.expect(flood)
		client.send(frame(0x83, "no opcode", true))
		backend.expectClose(1002, "protocol error")
		client.Close()
		backend.Close()
		r.wantSummary(upgrade.SideGateway, 1002)
	})
}

// A tunnel that begins where another one has ended begins anew.
func TestMessageRateOfNextTunnel(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		h, ends := backends(t)
		r := newRig(t, s, &upgrade.Proxy{MessageRate: 1, MessageBurst: 10}, h)
		burst := strings.Repeat(string(text("x", true)), 10)
		for range 10 {
			client := r.client()
			backend := wait(t, ends)
			client.send([]byte(burst))
			backend.expect(burst)
			client.Close()
			backend.Close()
			wait(t, r.closed)
		}
	})
}

// Without a MessageBurst those of 10 seconds may come at once.
func TestMessageBurstByDefault(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		r, client, backend := pair(t, s, &upgrade.Proxy{MessageRate: 1})
		fits := strings.Repeat(string(text("x", true)), 10)
		client.send([]byte(fits))
		backend.expect(fits)
		client.send([]byte(fits))
		client.expectCloseFrame(1008, "too many messages")
		client.Close()
		backend.Close()
		r.wantSummary(upgrade.SideGateway, 1008)
	})
}
