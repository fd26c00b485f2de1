package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const cureUpgrade = "let the proxy in front pass Upgrade (nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";)."

// checkWebSocket opens a session on a WebSocket. It reports whether that works.
func (d *doctor) checkWebSocket(ctx context.Context) bool {
	ctx, cancel := d.step(ctx)
	defer cancel()
	c := d.client(false, true)
	conn, answer, err := c.dial(ctx, "")
	if err != nil {
		d.noWebSocket(answer, err)
		return false
	}
	defer conn.CloseNow()
	_, data, err := conn.Read(ctx)
	if err != nil || opened([]string{string(data)}) == nil {
		d.wrong(fmt.Sprintf("A WebSocket is opened, but no session comes on it within %v.", d.patience), "look for a proxy in front that answers 101 and passes no data.")
		return false
	}
	d.ok("WebSockets pass.")
	if conn.Write(ctx, websocket.MessageText, []byte(c.provocation())) == nil {
		_, data, _ = conn.Read(ctx) // of Socket.IO 2 perhaps a packet of its own
		d.answers = len(data) > 0
	}
	return true
}

// noWebSocket reports what came instead of a WebSocket.
func (d *doctor) noWebSocket(answer *eioAnswer, err error) {
	switch {
	case answer == nil:
		d.wrong(fmt.Sprintf("The connection breaks when a WebSocket is asked for: %v.", err), cureUpgrade)
	case answer.code() == codeUnknownTransport:
		d.note("The server allows no WebSockets.")
	case answer.code() == codeBadRequest, answer.StatusCode == http.StatusUpgradeRequired, answer.StatusCode == http.StatusOK:
		d.wrong(fmt.Sprintf("WebSockets don't pass, something in front drops Upgrade: %v. Clients stay on polling.", answer), cureUpgrade)
	case answer.code() == codeForbidden:
		d.unsure("The server refuses a WebSocket, as allowRequest may: %v. If it wants an origin, name it with -doctor-origin.", answer)
	default:
		d.wrong(fmt.Sprintf("WebSockets don't pass: %v. Clients stay on polling.", answer), cureUpgrade)
	}
}

// checkUpgrade moves sessions from polling to a WebSocket.
func (d *doctor) checkUpgrade(ctx context.Context) {
	if !d.stays && !d.kept {
		d.unsure("Whether sessions move from polling to a WebSocket: they don't stay.")
		return
	}
	const n = 4
	lost := 0
	for range n {
		ctx, cancel := d.step(ctx)
		err := d.upgrade(ctx)
		cancel()
		switch {
		case errors.Is(err, errStrayed):
			lost++
		case err != nil:
			d.unsure("A session doesn't move from polling to a WebSocket: %v", err)
			return
		}
	}
	if lost > 0 {
		d.wrong(fmt.Sprintf("%d of %d sessions can't move from polling to a WebSocket: it reaches a server that doesn't know them, although polls don't.", lost, n),
			"have the proxy choose the server of a WebSocket as that of other requests; some do it by another rule.")
		return
	}
	d.ok("Sessions move from polling to a WebSocket.")
}

var errStrayed = errors.New("another server was reached")

func (d *doctor) upgrade(ctx context.Context) error {
	c := d.client(!d.stays, false)
	s, answer, err := c.open(ctx)
	switch {
	case err != nil:
		return err
	case s == nil:
		return errors.New(answer.String())
	case !slices.Contains(s.Upgrades, "websocket"):
		return errors.New("the server doesn't offer it")
	}
	conn, answer, err := c.dial(ctx, s.SID)
	switch {
	case answer != nil && answer.code() == codeUnknownSession, answer != nil && answer.StatusCode == http.StatusBadRequest:
		return errStrayed // some versions say no code to a WebSocket
	case err != nil:
		return err
	}
	defer conn.CloseNow()
	return c.probe(ctx, conn)
}

// checkHold holds a poll and a WebSocket for a while, and sees whether they live on and
// whether what the server says comes at once.
func (d *doctor) checkHold(ctx context.Context) {
	var wg sync.WaitGroup
	var poll, socket func() // write the report, one after the other
	wg.Go(func() { poll = d.holdPoll(ctx) })
	wg.Go(func() { socket = d.holdSocket(ctx) })
	wg.Wait()
	poll()
	socket()
}

const cureHold = "raise the time limit of the proxies in front above pingInterval + pingTimeout, 45 s by default (nginx: proxy_read_timeout 60s; HAProxy: timeout server 60s, timeout tunnel 1h)."

// holdPoll returns a function that reports what became of a poll.
func (d *doctor) holdPoll(ctx context.Context) (report func()) {
	began := time.Now()
	skip := func(why any) func() {
		return func() { d.unsure("Whether polls are held long enough: %v", why) }
	}
	if !d.stays && !d.kept {
		return skip("sessions don't stay.")
	}
	ctx, cancel := context.WithTimeout(ctx, d.hold+4*d.patience)
	defer cancel()
	c := d.client(true, false)
	s, answer, err := c.open(ctx)
	if err != nil || s == nil {
		return skip(cmp.Or[error](err, errors.New(fmt.Sprint(answer))))
	}
	type result struct {
		answer *eioAnswer
		err    error
	}
	polled := make(chan result, 1)
	poll := func() {
		answer, err := c.do(ctx, s.SID)
		polled <- result{answer, err}
	}
	go poll()
	timer := time.NewTimer(d.hold)
	defer timer.Stop()
	for holding := true; holding; {
		select {
		case <-timer.C:
			holding = false
		case r := <-polled:
			after := time.Since(began).Round(time.Second / 10)
			switch {
			case r.err != nil || r.answer.StatusCode >= 500:
				return func() {
					d.wrong(fmt.Sprintf("A poll was cut off after %v: %v.", after, cmp.Or[any](r.err, r.answer)), cureHold)
				}
			case r.answer.StatusCode != http.StatusOK:
				return skip(r.answer)
			}
			if slices.Contains(r.answer.packets, "2") {
				_, _ = c.alive(ctx, s.SID)
			}
			go poll()
		}
	}
	if answer, err := c.do(ctx, s.SID, c.provocation()); err != nil || answer.StatusCode != http.StatusOK {
		return skip(cmp.Or[any](err, answer))
	}
	select {
	case r := <-polled:
		if r.err != nil || r.answer.StatusCode != http.StatusOK {
			return skip(cmp.Or[any](r.err, r.answer))
		}
		return func() {
			d.ok("A poll was held for %v, and answered when there was something to say.", d.hold)
			if ping := time.Duration(s.PingInterval) * time.Millisecond; d.hold < ping {
				d.note("The server is silent for up to %v: -doctor-hold %v would find time limits that are shorter.", ping, ping+5*time.Second)
			}
		}
	case <-time.After(d.patience):
		if !d.answers {
			return skip("the server doesn't answer as Socket.IO does")
		}
		return func() {
			d.wrong(fmt.Sprintf("The server has answered something, but the poll that was held got nothing for %v.", d.patience),
				"switch buffering off in the proxies in front (nginx: proxy_buffering off; proxy_request_buffering off).")
		}
	}
}

// holdSocket returns a function that reports what became of a WebSocket.
func (d *doctor) holdSocket(ctx context.Context) (report func()) {
	ctx, cancel := context.WithTimeout(ctx, d.hold+2*d.patience)
	defer cancel()
	conn, _, err := d.client(false, false).dial(ctx, "")
	if err != nil {
		return func() {} // checkWebSocket has said it
	}
	defer conn.CloseNow()
	held, cancelHeld := context.WithTimeout(ctx, d.hold)
	defer cancelHeld()
	began := time.Now()
	for {
		_, data, err := conn.Read(held)
		switch {
		case held.Err() != nil:
			return func() { d.ok("A WebSocket was held for %v.", d.hold) }
		case err != nil:
			after := time.Since(began).Round(time.Second / 10)
			return func() {
				d.wrong(fmt.Sprintf("A WebSocket was cut off after %v: %v.", after, err), cureHold)
			}
		case string(data) == "2":
			_ = conn.Write(ctx, websocket.MessageText, []byte("3"))
		}
	}
}
