//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// A scene is one thing that clients do to a gateway.
type scene struct {
	name string
	does string // what one operation is
	play func(*trial) error
	pins bool // what Limpet's affinity costs shows here

	rests []string // when the memory of each of its clients is read, for a case that is about this
}

var scenes = []*scene{
	{name: "GET", pins: true, does: "small answer, client without cookies", play: func(t *trial) error {
		return t.fetch(t.Clients, func() *visitor {
			v := newVisitor("GET", "/small", "", false)
			v.want = []byte(smallBody)
			return v
		})
	}},
	{name: "GET with cookie", pins: true, does: "small answer, client with its cookie", play: func(t *trial) error {
		return t.fetch(t.Clients, func() *visitor {
			v := newVisitor("GET", "/small", "", true)
			v.want = []byte(smallBody)
			return v
		})
	}},
	{name: "polling GET", pins: true, does: "Engine.IO poll with cookie", play: func(t *trial) error { return t.fetch(t.Clients, poller) }},
	{name: "polling POST", pins: true, does: "Engine.IO message with cookie", play: func(t *trial) error {
		return t.fetch(t.Clients, func() *visitor {
			v := newVisitor("POST", "/poll/?EIO=4&transport=polling&sid=lv_VI97HAXpY6yYWAAAC", posted, true)
			v.begins = postBody
			return v
		})
	}},
	{name: "1 MiB", does: "answer of 1 MiB", play: func(t *trial) error {
		return t.fetch(min(t.Clients, 4), func() *visitor {
			v := newVisitor("GET", "/big", "", true)
			v.want = bigBody
			return v
		})
	}},
	{name: "echo 64 B", does: "WebSocket message there and back", play: func(t *trial) error { return t.echo(64, t.Clients) }},
	{name: "echo 4 KiB", does: "WebSocket message there and back", play: func(t *trial) error { return t.echo(4<<10, t.Clients) }},
	{name: "paced", does: "64 bytes there and back, at a fixed rate", play: (*trial).paced},
	{name: "open-echo-close", pins: true, does: "WebSocket opened, used once and closed", play: (*trial).churn},
	{name: "opening", pins: true, does: "WebSocket opened, and kept", play: (*trial).opening},
	{name: "idle", pins: true, does: "first message on each of many tunnels", play: (*trial).idle,
		rests: []string{"opened", "after one message on each"}},
	{name: "broadcast", does: "one of many deliveries of a message", play: (*trial).broadcast},
	{name: "waiting polls", does: "answer to one of many polls, each of which waits for some time", play: (*trial).waiting,
		rests: []string{"first", "steady"}},
	{name: "wss echo 64 B", does: "the same, the client over TLS", play: func(t *trial) error { return t.echo(64, t.Clients) }},
	{name: "wss echo 4 KiB", does: "the same, the client over TLS", play: func(t *trial) error { return t.echo(4<<10, t.Clients) }},
	{name: "wss idle", does: "the same, the clients over TLS", play: (*trial).idle,
		rests: []string{"opened", "after one message on each"}},
}

func poller() *visitor {
	v := newVisitor("GET", "/poll/?EIO=4&transport=polling&sid=lv_VI97HAXpY6yYWAAAC", "", true)
	v.begins = pollBody
	return v
}

// fetch has visitors make requests, spread over the connections.
func (t *trial) fetch(visitors int, one func() *visitor) error {
	each := make([][]*visitor, min(visitors, t.Clients))
	for i := range visitors {
		each[i%len(each)] = append(each[i%len(each)], one())
	}
	var fetchers []*fetcher
	for _, visitors := range each {
		f, err := t.fetcher(visitors)
		if err != nil {
			return err
		}
		fetchers = append(fetchers, f)
	}
	all := func() {
		for _, f := range fetchers {
			f.next()
		}
	}
	return t.warmed(all)
}

// open opens n tunnels, as many at a time as there are clients.
func (t *trial) open(n int) ([]*socket, error) {
	o := &opener{trial: t, n: n}
	most := patience
	if t.tls {
		most *= 10 // one handshake of TLS at a time
	}
	err := t.drive(most, o.start)
	return o.sockets, errors.Join(err, o.failed)
}

// An opener opens n tunnels.
type opener struct {
	*trial
	n       int
	sockets []*socket
	failed  error
}

func (o *opener) start() {
	for range o.Clients {
		o.next()
	}
}

func (o *opener) next() {
	if len(o.sockets) == o.n || o.failed != nil {
		return
	}
	since := o.begin()
	s, err := o.socket(len(o.sockets), func(err error) {
		o.end(since, err)
		o.next()
	})
	if err != nil {
		o.busy--
		o.failed = err
		return
	}
	o.sockets = append(o.sockets, s)
}

// opening opens tunnels and keeps them.
func (t *trial) opening() error {
	if _, err := t.open(t.Clients); err != nil { // warms up
		return err
	}
	o := &opener{trial: t, n: t.Members}
	return errors.Join(t.measure(patience, o.start), o.failed)
}

// echo keeps one message under way for each client, on each of n tunnels in turn.
func (t *trial) echo(size, n int) error {
	sockets, err := t.open(n)
	if err != nil {
		return err
	}
	frame, want := message(size)
	clients := min(n, t.Clients)
	all := func() {
		for i := range clients {
			var step func()
			step = func() {
				if !t.more() {
					return
				}
				since := t.begin()
				sockets[i].exchange(frame, want, func(err error) {
					t.end(since, err)
					if i += clients; i >= n {
						i %= clients
					}
					if err == nil {
						step()
					}
				})
			}
			step()
		}
	}
	return t.warmed(all)
}

// message returns a client's frame of this payload and the backend's echo.
func message(size int) (frame, want []byte) {
	payload := bytes.Repeat([]byte("limpets "), size/8+1)[:size]
	return appendFrame(nil, opBinary, payload, true), appendFrame(nil, opBinary, payload, false)
}

// paced sends at a fixed rate, whether answers come or not. What finds no tunnel
// free waits for one, and that counts as its time.
func (t *trial) paced() error {
	free, err := t.open(t.Quiet)
	if err != nil {
		return err
	}
	whole := len(free) // tunnels that aren't lost
	frame, want := message(64)
	var due []time.Time
	var send func()
	send = func() {
		for len(due) > 0 && len(free) > 0 {
			s, since := free[0], due[0]
			free, due = free[1:], due[1:]
			s.exchange(frame, want, func(err error) {
				t.end(since, err)
				if err == nil {
					free = append(free, s)
				} else {
					whole--
				}
				send()
			})
		}
		if whole == 0 {
			for _, since := range due {
				t.end(since, errors.New("no tunnel is left"))
			}
			due = nil
		}
	}
	all := func() {
		t.begin() // the clock itself
		err := t.every(time.Second/time.Duration(t.Rate), func(ticks int) bool {
			for range ticks {
				due = append(due, t.begin())
			}
			send()
			if t.more() {
				return true
			}
			t.busy--
			return false
		})
		if err != nil {
			t.busy--
			t.fault(err)
		}
	}
	return t.warmed(all)
}

// churn opens, uses and closes tunnels.
func (t *trial) churn() error {
	frame, want := message(64)
	var number int
	var step func()
	step = func() {
		if !t.more() {
			return
		}
		since := t.begin()
		end := func(err error) {
			t.end(since, err)
			if err == nil {
				step()
			}
		}
		var s *socket
		number++
		s, err := t.socket(number, func(err error) {
			if err != nil {
				end(err)
				return
			}
			s.exchange(frame, want, func(err error) {
				if err != nil {
					end(err)
					return
				}
				s.bye(end)
			})
		})
		if err != nil {
			end(err)
		}
	}
	return t.warmed(func() {
		for range min(t.Clients, 16) {
			step()
		}
	})
}

// idle opens many tunnels, which do nothing, and then has one message on each.
func (t *trial) idle() error {
	if err := t.work(); err != nil {
		return err
	}
	before, err := t.gateway.Memory()
	if err != nil {
		return err
	}
	sockets, err := t.open(t.Idle)
	if err == nil {
		err = t.settle(t.Settle)
	}
	if err != nil {
		return err
	}
	opened, err := t.gateway.Memory()
	if err != nil {
		return err
	}
	frame, want := message(64)
	var next func()
	var i int
	next = func() {
		if i == len(sockets) {
			return
		}
		since := t.begin()
		i++
		sockets[i-1].exchange(frame, want, func(err error) {
			t.end(since, err)
			next()
		})
	}
	err = t.measure(patience, func() {
		for range t.Clients {
			next()
		}
	})
	if err == nil {
		err = t.settle(t.Settle)
	}
	if err != nil {
		return err
	}
	used, err := t.gateway.Memory()
	t.result.Opened = float64(opened-before) / float64(t.Idle)
	t.result.Used = float64(used-before) / float64(t.Idle)
	return err
}

// broadcast has the backends send a message to all tunnels, again and again.
func (t *trial) broadcast() error {
	sockets, err := t.open(t.Members)
	if err != nil {
		return err
	}
	ask, want := appendFrame(nil, opBinary, []byte(tell), true), appendFrame(nil, opBinary, []byte(tell), false)
	left := 2
	var again func()
	again = func() {
		if left == 0 {
			return
		}
		left--
		since := t.begin()
		waiting := len(sockets)
		t.busy += waiting - 1
		for i, s := range sockets {
			var frame []byte
			if i == 0 {
				frame = ask
			}
			s.exchange(frame, want, func(err error) {
				t.end(since, err)
				if waiting--; waiting == 0 {
					again()
				}
			})
		}
	}
	if err := t.drive(0, again); err != nil {
		return err
	}
	left = t.Messages
	if err := t.measure(patience, again); err != nil {
		return err
	}
	if want := t.Messages * t.Members; t.result.Operations != want {
		t.fault(fmt.Errorf("%d deliveries, want %d", t.result.Operations, want))
	}
	return nil
}
