package upgrade_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// What clients have sent before they got the close frame of a drain is answered. On a pump
// time is that of synctest, so that no message crosses the close frame. On a loop one may
// that is sent at the same moment: it isn't answered, but the backend gets it all the same.
func TestDrainAnswers(t *testing.T) {
	t.Parallel()
	const each = 12
	bubble(t, "pump", func(t *testing.T) {
		p := &upgrade.Proxy{}
		var talks []*talk
		for i := range each * len(habits) {
			client, backend, _ := open(t, p, upgrade.ConnectOptions{Turn: float64(i) / (2 * each * float64(len(habits)))})
			talks = append(talks, newTalk(client, backend, habits[i%len(habits)], 250*time.Millisecond))
		}
		<-time.After(3 * time.Second)
		began := time.Now()
		p.DrainAll(1012, "", 2*time.Second)
		for _, k := range talks {
			k.check(t, began.Add(2*time.Second), 0)
		}
		synctest.Wait()
	})
	t.Run("epoll", func(t *testing.T) {
		t.Parallel()
		h, ends := backends(t)
		r := newRig(t, setups[0], &upgrade.Proxy{}, h)
		var talks []*talk
		for i := range each * len(habits) {
			client, backend := r.client(), wait(t, ends)
			talks = append(talks, newTalk(client, backend, habits[i%len(habits)], 100*time.Millisecond))
		}
		<-time.After(time.Second)
		began := time.Now()
		r.proxy.DrainAll(1012, "", 2*time.Second)
		for _, k := range talks {
			k.check(t, began.Add(2*time.Second+patience), 100*time.Millisecond)
		}
	})
}

// Neither what is no whole message nor what has come before the question is its answer.
func TestLullWaitsForAnswer(t *testing.T) {
	t.Parallel()
	plain := func() *upgrade.Proxy { return &upgrade.Proxy{} }
	question := text("question", true)
	say := func(x timed, b []byte) {
		x.backend.send(b)
		x.client.expect(string(b))
	}
	for _, tt := range []struct {
		name                  string
		before, after, answer []byte
	}{
		{"nothing else", nil, nil, text("answer", false)},
		{"a message before", text("push", false), nil, text("answer", false)},
		{"a ping behind", nil, frame(0x89, "", false), text("answer", false)},
		{"a part of a frame behind", nil, text("answer", false)[:3], text("answer", false)[3:]},
		{"a fragment behind", nil, frame(0x01, "answer", false), frame(0x80, "", false)},
	} {
		inTime(t, tt.name, plain, func(t *testing.T, x timed) {
			x.pass(time.Hour)
			say(x, tt.before)
			x.client.send(question)
			x.backend.expect(string(question))
			say(x, tt.after)
			x.tunnel.CloseGracefully(1012, "")
			x.pass(500 * time.Millisecond)
			say(x, tt.answer)
			x.client.expectCloseFrame(1012, "")
		})
	}
}

// A tunnel that waits for a lull is closed in time, although nothing moves in it.
func TestLullOfStuckTunnel(t *testing.T) {
	t.Parallel()
	plain := func() *upgrade.Proxy { return &upgrade.Proxy{} }
	question := text("question", true)
	fill := func(e *end, masked bool) { // all buffers from e to the other end
		message := text(strings.Repeat("x", 60_000), masked)
		for err := error(nil); err == nil; {
			e.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			_, err = e.Write(message)
		}
	}
	ended := func(t *testing.T, x timed) {
		t.Helper()
		x.pass(1001 * time.Millisecond) // the longest wait
		x.pass(2001 * time.Millisecond) // for close frames, and for both ends
		if s := wait(t, x.closed); s.By != upgrade.SideGateway && s.By != upgrade.SideClient {
			t.Errorf("%+v", s)
		}
	}
	inTime(t, "the client takes nothing, and ends its half", plain, func(t *testing.T, x timed) {
		fill(x.backend, false)
		x.client.send(question)
		x.backend.expect(string(question))
		x.tunnel.CloseGracefully(1012, "")
		x.client.closeWrite()
		ended(t, x)
	})
	inTime(t, "neither end takes anything", plain, func(t *testing.T, x timed) {
		fill(x.backend, false)
		fill(x.client, true)
		x.tunnel.CloseGracefully(1012, "")
		ended(t, x)
	})
}

// A habit is how a client talks to a backend.
type habit struct {
	name        string
	burst       int // messages that are sent 20 ms apart
	least, most time.Duration
	answered    bool // the pause begins when all is answered
	pushes      bool // the backend sends other messages too, all the time
}

var habits = []habit{
	{name: "one question after the other", burst: 1, least: 50 * time.Millisecond, most: 400 * time.Millisecond, answered: true},
	{name: "a message now and then, among others", burst: 1, least: 700 * time.Millisecond, most: 1500 * time.Millisecond, pushes: true},
	{name: "some at once", burst: 4, least: 700 * time.Millisecond, most: 1500 * time.Millisecond},
}

// A talk is what a client and a backend say over a tunnel.
type talk struct {
	habit
	client, backend *end
	slowest         time.Duration // answer of the backend; the fastest takes a fifth of that
	over            chan struct{} // closed when the client has got the close frame
	left            chan struct{} // closed when the backend has

	mu       sync.Mutex // held to write too
	sent     map[string]time.Time
	arrived  []string
	answered chan string
	missing  map[string]time.Time // sent, and not answered
	closed   time.Time
}

func newTalk(client, backend *end, h habit, slowest time.Duration) *talk {
	k := &talk{
		habit: h, client: client, backend: backend, slowest: slowest, over: make(chan struct{}), left: make(chan struct{}),
		sent: make(map[string]time.Time), missing: make(map[string]time.Time), answered: make(chan string, 1000),
	}
	go k.hear()
	go k.ask()
	go k.serve()
	return k
}

// write writes a frame, and calls before with the lock held, unless the client has got the
// close frame.
func (k *talk) write(e *end, b []byte, before func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed.IsZero() {
		before()
		e.Write(b)
	}
}

// ask is the client that sends.
func (k *talk) ask() {
	for n := 0; ; {
		for range k.burst {
			select {
			case <-k.over:
				return
			case <-time.After(20 * time.Millisecond):
			}
			n++
			m := fmt.Sprint(n)
			k.write(k.client, text(m, true), func() { k.sent[m], k.missing[m] = time.Now(), time.Now() })
		}
		for i := 0; k.habit.answered && i < k.burst; i++ {
			select {
			case <-k.answered:
			case <-k.over:
				return
			}
		}
		select {
		case <-k.over:
			return
		case <-time.After(k.least + rand.N(k.most-k.least)):
		}
	}
}

// hear is the client that receives. It answers the close frame, as RFC 6455 wants.
func (k *talk) hear() {
	defer close(k.over)
	for {
		op, payload, err := readFrame(k.client.r)
		switch {
		case err != nil:
			return
		case op == 0x88:
			k.mu.Lock()
			k.closed = time.Now()
			k.mu.Unlock()
			k.client.Write(frame(0x88, string(payload), true))
			k.client.closeWrite()
			return
		case string(payload) != "push":
			k.mu.Lock()
			delete(k.missing, string(payload))
			k.mu.Unlock()
			k.answered <- string(payload)
		}
	}
}

// serve is the backend.
func (k *talk) serve() {
	defer close(k.left)
	var wg sync.WaitGroup
	defer wg.Wait()
	gone := make(chan struct{})
	var mu sync.Mutex
	say := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		k.backend.Write(text(s, false))
	}
	if k.pushes {
		wg.Go(func() {
			for {
				select {
				case <-gone:
					return
				case <-time.After(30*time.Millisecond + rand.N(50*time.Millisecond)):
					say("push")
				}
			}
		})
	}
	for {
		op, payload, err := readFrame(k.backend.r)
		if err != nil || op == 0x88 {
			close(gone)
			k.backend.Close()
			return
		}
		k.arrived = append(k.arrived, string(payload))
		wg.Go(func() {
			select {
			case <-gone:
			case <-time.After(k.slowest/5 + rand.N(k.slowest/5*4)):
				say(string(payload))
			}
		})
	}
}

// check waits for the end, which must come by then. What was sent at least that long before
// the close frame came must have been answered, and all must have arrived.
func (k *talk) check(t *testing.T, by time.Time, crossing time.Duration) {
	t.Helper()
	wait(t, k.over)
	wait(t, k.left)
	k.client.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed.IsZero() || k.closed.After(by) {
		t.Errorf("%s: the close frame came at %v, want it by %v", k.name, k.closed, by)
	}
	for m, at := range k.missing {
		if before := k.closed.Sub(at); before >= crossing {
			t.Errorf("%s: message %s wasn't answered, which was sent %v before the close frame came", k.name, m, before)
		}
	}
	sent := slices.Sorted(maps.Keys(k.sent))
	if slices.Sort(k.arrived); !slices.Equal(k.arrived, sent) {
		t.Errorf("%s: %v were sent, and %v arrived", k.name, sent, k.arrived)
	}
	if len(sent) == 0 {
		t.Errorf("%s: nothing was sent", k.name)
	}
}
