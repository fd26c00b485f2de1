package upgrade_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// What the tests in bubbles say of time limits and of waiting holds on the loops
// too, whose connections can't be in a bubble.
func TestLoopsLifetime(t *testing.T) {
	t.Parallel()
	const moment = time.Second + time.Millisecond // frameTime and drainTime
	hello, late := text("hello", false), text("too late", false)
	for name, test := range map[string]func(t *testing.T, r *rig, client, backend *end, tunnel *upgrade.Tunnel){
		"frame ends": func(t *testing.T, r *rig, client, backend *end, tunnel *upgrade.Tunnel) {
			backend.send(hello[:3])
			client.expect(string(hello[:3]))
			tunnel.Close(1012, "")
			backend.expectCloseFrame(1012, "")
			backend.send(append(hello[3:], late...))
			client.expect(string(hello[3:]))
			client.expectClose(1012, "")
			upgrade.Advance(r.proxy, 2*moment) // neither end closes
			r.wantSummary(upgrade.Gateway, 1012)
		},
		"frame hangs": func(t *testing.T, r *rig, client, backend *end, tunnel *upgrade.Tunnel) {
			backend.send(hello[:3])
			client.expect(string(hello[:3]))
			tunnel.Close(1012, "")
			backend.expectClose(1012, "")
			upgrade.Advance(r.proxy, moment)
			client.expectEOF()
			upgrade.Advance(r.proxy, moment)
			r.wantSummary(upgrade.Gateway, 1012)
		},
		"half open": func(t *testing.T, r *rig, client, backend *end, tunnel *upgrade.Tunnel) {
			client.closeWrite()
			backend.expectEOF()
			for range 5 {
				upgrade.Advance(r.proxy, 20*time.Second)
				backend.send(hello)
				client.expect(string(hello))
			}
			upgrade.Advance(r.proxy, 30*time.Second+moment)
			client.expectEOF()
			r.wantSummary(upgrade.Client, 0)
		},
		"backend has said goodbye": func(t *testing.T, r *rig, client, backend *end, tunnel *upgrade.Tunnel) {
			bye := string(frame(0x88, string(closing(1000, "")), false))
			backend.send([]byte(bye))
			backend.closeWrite()
			client.expect(bye)
			client.expectEOF()
			client.send(text("last words", true))
			backend.expect(string(text("last words", true)))
			upgrade.Advance(r.proxy, moment)
			r.wantSummary(upgrade.Backend, 1000)
		},
		"client is slow": func(t *testing.T, r *rig, client, backend *end, tunnel *upgrade.Tunnel) {
			client.closeWrite()
			backend.expectEOF()
			big := text(strings.Repeat("x", 60_000), false)
			whole, rest := 0, big
			for { // until nothing moves any more
				backend.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
				n, err := backend.Write(rest)
				if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
				if rest = rest[n:]; len(rest) == 0 {
					whole, rest = whole+1, big
				}
			}
			upgrade.Advance(r.proxy, 31*time.Second) // it is not the backend that is silent
			for range whole {
				client.expect(string(big))
			}
			upgrade.Advance(r.proxy, 31*time.Second)
			r.wantSummary(upgrade.Client, 0)
		},
		"idle": func(t *testing.T, r *rig, client, backend *end, tunnel *upgrade.Tunnel) {
			r.proxy.IdleTimeout = 50 * time.Millisecond
			r.client().expectCloseFrame(1001, "idle")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, client, backend := pair(t, setups[0], &upgrade.Proxy{})
			test(t, r, client, backend, wait(t, r.tunnels))
		})
	}
}

func TestLoopsSend(t *testing.T) {
	t.Parallel()
	r, client, backend := pair(t, setups[0], &upgrade.Proxy{})
	tunnel := wait(t, r.tunnels)
	first, last := frame(0x01, "hel", false), frame(0x80, "lo", false)
	for _, part := range [][]byte{first[:2], first[2:], frame(0x89, "", false), last[:3]} {
		backend.send(part)
		client.expect(string(part))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := tunnel.Send(ctx, upgrade.TextFrame("x")); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("sent behind %q: %v", part, err)
		}
		cancel()
	}
	sent := make(chan error, 3)
	for range 3 {
		go func() { sent <- send(t, tunnel, upgrade.TextFrame("now")) }()
	}
	upgrade.Waiting(tunnel, 3)
	next := string(text("next", false))
	backend.send(append(last[3:], next+next+string(first)...))
	client.expect(string(last[3:]) + "\x81\x03now" + next + "\x81\x03now" + next + "\x81\x03now" + string(first))
	for range 3 {
		if err := wait(t, sent); err != nil {
			t.Error(err)
		}
	}
	// Nobody waits for a message that can't end any more.
	for range 2 {
		go func() { sent <- send(t, tunnel, upgrade.TextFrame("x")) }()
	}
	upgrade.Waiting(tunnel, 2)
	tunnel.Close(1012, "")
	for range 2 {
		if err := wait(t, sent); !errors.Is(err, upgrade.ErrClosed) {
			t.Error(err)
		}
	}
	client.expectClose(1012, "")
	backend.expectClose(1012, "")
}

// A sender whose client doesn't read is told when the tunnel is given up.
func TestLoopsSendClosedMeanwhile(t *testing.T) {
	t.Parallel()
	r, _, backend := pair(t, setups[0], &upgrade.Proxy{})
	tunnel := wait(t, r.tunnels)
	sent := make(chan error, 1)
	go func() {
		big := upgrade.BinaryFrame(make([]byte, 1<<20))
		for {
			if err := send(t, tunnel, big); err != nil {
				sent <- err
				return
			}
		}
	}()
	upgrade.Waiting(tunnel, 1)
	tunnel.Close(1012, "")
	backend.expectClose(1012, "")
	backend.Close()
	upgrade.Advance(r.proxy, 2*time.Second)
	if err := wait(t, sent); !errors.Is(err, upgrade.ErrClosed) {
		t.Error(err)
	}
	r.wantSummary(upgrade.Gateway, 1012)
}
