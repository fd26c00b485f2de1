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
}

var scenes = []*scene{
	{"GET", "small answer, client without cookies", func(t *trial) error {
		return t.fetch(t.Clients, func() *visitor {
			v := newVisitor("GET", "/small", "", false)
			v.want = []byte(smallBody)
			return v
		})
	}},
	{"GET with cookie", "small answer, client with its cookie", func(t *trial) error {
		return t.fetch(t.Clients, func() *visitor {
			v := newVisitor("GET", "/small", "", true)
			v.want = []byte(smallBody)
			return v
		})
	}},
	{"polling GET", "Engine.IO poll with cookie", func(t *trial) error { return t.fetch(t.Clients, poller) }},
	{"polling POST", "Engine.IO message with cookie", func(t *trial) error {
		return t.fetch(t.Clients, func() *visitor {
			v := newVisitor("POST", "/poll/?EIO=4&transport=polling&sid=lv_VI97HAXpY6yYWAAAC", posted, true)
			v.begins = postBody
			return v
		})
	}},
	{"1 MiB", "answer of 1 MiB", func(t *trial) error {
		return t.fetch(min(t.Clients, 4), func() *visitor {
			v := newVisitor("GET", "/big", "", true)
			v.want = bigBody
			return v
		})
	}},
	{"echo 64 B", "WebSocket message there and back", func(t *trial) error { return t.echo(64, t.Clients) }},
	{"echo 4 KiB", "WebSocket message there and back", func(t *trial) error { return t.echo(4<<10, t.Clients) }},
	{"paced", "64 bytes there and back, at a fixed rate", (*trial).paced},
	{"open-echo-close", "WebSocket opened, used once and closed", (*trial).churn},
	{"idle", "first message on each of many tunnels", (*trial).idle},
	{"broadcast", "one of many deliveries of a message", (*trial).broadcast},
	{"wss echo 64 B", "the same, the client over TLS", func(t *trial) error { return t.echo(64, t.Clients) }},
	{"wss echo 4 KiB", "the same, the client over TLS", func(t *trial) error { return t.echo(4<<10, t.Clients) }},
	{"wss idle", "the same, the clients over TLS", (*trial).idle},
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
	var sockets []*socket
	var failed error
	var next func()
	next = func() {
		if len(sockets) == n || failed != nil {
			return
		}
		since := t.begin()
		s, err := t.socket(len(sockets), func(err error) {
			t.end(since, err)
			next()
		})
		if err != nil {
			t.busy--
			failed = err
			return
		}
		sockets = append(sockets, s)
	}
	most := patience
	if t.tls {
		most *= 10 // one handshake of TLS at a time
	}
	err := t.drive(most, func() {
		for range t.Clients {
			next()
		}
	})
	return sockets, errors.Join(err, failed)
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
// The gateway has just begun, so that what it needs once is in the figures.
func (t *trial) idle() error {
	if err := t.settle(t.Settle); err != nil {
		return err
	}
	before, err := t.gateway.memory()
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
	opened, err := t.gateway.memory()
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
	used, err := t.gateway.memory()
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
