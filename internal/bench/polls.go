//go:build linux

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// What waiting asks of the backends.
const (
	waits    = "/wait/"   // a poll that is answered late
	keeps    = "/keep"    // polls that come from now on are held
	releases = "/release" // those are answered, and later ones, each after its time
)

// holds is how often each poll is answered while the steady state is measured. The
// garbage of so many answers makes any garbage collector run several times.
const holds = 12

// waiting has many clients wait for their polls' answers, each on a connection of its
// own. Opened is the memory of each while none was answered yet. Then each is answered
// after half to one and a half of Hold, and polls again, as long as it takes to come to a
// steady state: Used is the most memory then.
func (t *trial) waiting() error {
	if err := t.work(); err != nil {
		return err
	}
	before, err := t.gateway.Memory()
	if err != nil {
		return err
	}
	if err := t.drive(0, func() { t.tell(keeps) }); err != nil {
		return err
	}
	var fetchers []*fetcher
	for range t.Polls {
		f, err := t.fetcher([]*visitor{poller()})
		if err != nil {
			return err
		}
		if err := t.drive(0, f.next); err != nil { // it gets its cookie
			return err
		}
		v := f.visitors[0]
		v.request = bytes.Replace(v.request, []byte("/poll/?"), fmt.Appendf(nil, "%s?hold=%d&", waits, t.Hold.Milliseconds()), 1)
		fetchers = append(fetchers, f)
	}
	t.until = time.Now().Add(time.Hour)
	for some := range slices.Chunk(fetchers, t.Clients) { // clients come one after the other
		for _, f := range some {
			f.next()
		}
		if err := t.settle(10 * time.Millisecond); err != nil {
			return err
		}
	}
	if err := t.settle(t.Settle); err != nil {
		return err
	}
	opened, err := t.gateway.Memory()
	if err != nil {
		return err
	}
	if t.busy != t.Polls {
		t.fault(fmt.Errorf("%d of %d polls wait", t.busy, t.Polls))
	}
	err = t.measure(holds*t.Hold, func() { t.tell(releases) })
	t.result.Opened = float64(opened-before) / float64(t.Polls)
	t.result.Used = (t.result.Memory - float64(before)) / float64(t.Polls)
	return err
}

// tell asks the backends for something, through the gateway.
func (t *trial) tell(path string) {
	c, err := t.dial(t.port)
	if err != nil {
		t.fault(err)
		return
	}
	t.busy++
	c.received = func(p []byte, err error) {
		t.busy--
		c.close()
		if err == nil && !bytes.HasPrefix(p, []byte("HTTP/1.1 200 ")) {
			err = fmt.Errorf("answer %.60q", p)
		}
		if err != nil {
			t.fault(fmt.Errorf("%s: %w", path, err))
		}
	}
	c.send(fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: bench.example\r\n\r\n", path))
}

// work has the gateway do what it does all day, so that what it needs once is there
// before memory is read.
func (t *trial) work() error {
	var fetchers []*fetcher
	for range t.Clients {
		f, err := t.fetcher([]*visitor{poller()})
		if err != nil {
			return err
		}
		fetchers = append(fetchers, f)
	}
	err := t.drive(t.Time/2, func() {
		for _, f := range fetchers {
			f.next()
		}
	})
	if err != nil {
		return err
	}
	sockets, err := t.open(t.Clients)
	for _, s := range sockets {
		s.conn.close()
	}
	for _, f := range fetchers {
		f.conn.close()
	}
	if err != nil {
		return err
	}
	return t.settle(t.Settle)
}

// A waitingRoom has the polls that a process of backends hasn't answered yet.
type waitingRoom struct {
	loop    *loop
	open    bool                // else polls wait until it is opened
	kept    []heldPoll          // which do that
	due     [1 << 12][]heldPoll // by the tick when they are answered
	tick    int
	ticking bool // the timer runs, until it finds the room closed
}

type heldPoll struct {
	guest *guest
	ticks int // to wait, in the mean
}

// tick is the unit of the room's time.
const tick = 10 * time.Millisecond

// hold takes a poll. Its mean time to wait is in its request line.
func (r *waitingRoom) hold(g *guest, line []byte) {
	var ms int
	_, rest, _ := bytes.Cut(line, []byte("hold="))
	_, _ = fmt.Sscanf(string(rest), "%d", &ms)
	p := heldPoll{g, ms / int(tick.Milliseconds())}
	if r.open {
		r.put(p, p.ticks/2)
	} else {
		r.kept = append(r.kept, p)
	}
}

// put has the poll answered at random within its mean time, which begins after so many
// ticks.
func (r *waitingRoom) put(p heldPoll, after int) {
	at := (r.tick + 1 + min(after+rand.IntN(p.ticks+1), len(r.due)-2)) % len(r.due)
	r.due[at] = append(r.due[at], p)
}

// keep closes the room. What the case before has left there has no client any more.
func (r *waitingRoom) keep() { r.open, r.kept = false, nil }

// release opens the room.
func (r *waitingRoom) release() {
	r.open = true
	for _, p := range r.kept {
		r.put(p, 0)
	}
	r.kept = nil
	if r.ticking {
		return
	}
	r.ticking = true
	if err := r.loop.every(tick, r.pass); err != nil {
		panic(err)
	}
}

// pass answers the polls that are due within so many ticks. It returns false if the room
// is closed.
func (r *waitingRoom) pass(ticks int) bool {
	for range ticks {
		r.tick = (r.tick + 1) % len(r.due)
		now := r.due[r.tick]
		r.due[r.tick] = nil
		for _, p := range now {
			p.guest.send(p.guest.poll)
		}
	}
	r.ticking = r.open
	return r.open
}
