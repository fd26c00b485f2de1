package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// loopSetups returns the setups that differ in what a loop does, but for backends with
// TLS: crypto/tls can't write any more after a write that a test has interrupted.
func loopSetups() []setup {
	return slices.DeleteFunc(slices.Clone(setups), func(s setup) bool {
		return !strings.HasPrefix(s.name, "epoll") || s.name == "epoll,unwrapped" || s.tls
	})
}

// eachLoop is each for what only loops do.
func eachLoop(t *testing.T, test func(t *testing.T, s setup)) {
	t.Parallel()
	for _, s := range loopSetups() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// onLoops is the half of inTime that runs on the loops.
func onLoops(t *testing.T, name string, proxy func() *upgrade.Proxy, test func(t *testing.T, x timed)) {
	for _, s := range loopSetups() {
		t.Run(name+"/"+s.name, func(t *testing.T) {
			t.Parallel()
			r, client, backend := pair(t, s, proxy())
			test(t, timed{client, backend, wait(t, r.tunnels), r.closed, func(d time.Duration) { upgrade.Advance(r.proxy, d) }})
		})
	}
}

// Tunnels go on even if the loop isn't told of its events.
func TestLoopsLostWakeUp(t *testing.T) {
	t.Parallel()
	r, client, backend := pair(t, setups[0], &upgrade.Proxy{})
	if !upgrade.Deafen(wait(t, r.tunnels)) {
		t.Fatal("the runtime doesn't know the loop")
	}
	for range 2 {
		client.send(text("hello", true))
		backend.expect(string(text("hello", true)))
	}
	client.closeWrite()
	backend.expectEOF()
}

// New tunnels follow GOMAXPROCS when it changes; those there are stay where they are.
func TestLoopsFollowProcessors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	h, ends := backends(t)
	r := newRig(t, setups[0], &upgrade.Proxy{}, h)
	var clients, behind []*end
	for _, step := range []struct {
		processors, open int
		want             string
	}{{1, 2, "[2]"}, {3, 4, "[2 2 2]"}, {1, 2, "[4 2 2]"}, {2, 2, "[4 4 2]"}, {4, 3, "[4 4 3 2]"}} {
		runtime.GOMAXPROCS(step.processors)
		for range step.open {
			clients, behind = append(clients, r.client()), append(behind, wait(t, ends))
			wait(t, r.tunnels)
		}
		if got := fmt.Sprint(upgrade.OnLoops(r.proxy)); got != step.want {
			t.Errorf("%d more with %d processors: %s, want %s", step.open, step.processors, got, step.want)
		}
	}
	runtime.GOMAXPROCS(1)
	for i := range clients {
		clients[i].send(text("x", true))
		behind[i].expect(string(text("x", true)))
		clients[i].reset()
		r.wantSummary(upgrade.SideClient, 0)
	}
	if got := fmt.Sprint(upgrade.OnLoops(r.proxy)); got != "[0 0 0 0]" {
		t.Errorf("%s are left", got)
	}
}

// A client that is slow to read doesn't make its backend look silent. Only real
// sockets have room for what it has not read.
func TestLoopsSlowClient(t *testing.T) {
	eachLoop(t, slowClient)
}

func slowClient(t *testing.T, s setup) {
	r, client, backend := pair(t, s, &upgrade.Proxy{})
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
	r.wantSummary(upgrade.SideClient, 0)
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

func TestNoEventLoop(t *testing.T) {
	t.Parallel()
	r, client, backend := pair(t, setups[0], &upgrade.Proxy{NoEventLoop: true})
	if upgrade.OnLoop(wait(t, r.tunnels)) {
		t.Error("on a loop")
	}
	client.send(text("hello", true))
	backend.expect(string(text("hello", true)))
}

func TestLoopsSend(t *testing.T) {
	eachLoop(t, sendOnLoop)
}

func sendOnLoop(t *testing.T, s setup) {
	r, client, backend := pair(t, s, &upgrade.Proxy{})
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
	eachLoop(t, closedMeanwhile)
}

func closedMeanwhile(t *testing.T, s setup) {
	r, _, backend := pair(t, s, &upgrade.Proxy{})
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
	r.wantSummary(upgrade.SideGateway, 1012)
}
