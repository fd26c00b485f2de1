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

// onLoops is the half of inTime that runs on the loops.
func onLoops(t *testing.T, name string, proxy func() *upgrade.Proxy, test func(t *testing.T, x timed)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		r, client, backend := pair(t, setups[0], proxy())
		test(t, timed{client, backend, wait(t, r.tunnels), r.closed, func(d time.Duration) { upgrade.Advance(r.proxy, d) }})
	})
}

// A client that is slow to read doesn't make its backend look silent. Only real
// sockets have room for what it has not read.
func TestLoopsSlowClient(t *testing.T) {
	t.Parallel()
	r, client, backend := pair(t, setups[0], &upgrade.Proxy{})
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
}

func TestLoopsUnwrap(t *testing.T) {
	t.Parallel()
	for _, s := range setups {
		r, _, _ := pair(t, s, &upgrade.Proxy{})
		if got, want := upgrade.OnLoop(wait(t, r.tunnels)), strings.HasPrefix(s.name, "epoll"); got != want {
			t.Errorf("%s: on a loop: %v", s.name, got)
		}
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
