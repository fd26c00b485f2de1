//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/internal/busbench/role"
)

// A dialect is how a client of a hub becomes a member.
type dialect struct {
	path  string
	say   string // once the WebSocket is open
	heard string // is in the message that says that the client is a member
	ping  string // is answered
	pong  string
}

var (
	plain          = dialect{path: "/", heard: "welcome"}
	socketIO       = dialect{path: "/socket.io/?EIO=4&transport=websocket", say: "40", heard: `40{"sid"`, ping: "2", pong: "3"}
	centrifugeJSON = dialect{path: "/connection/websocket", say: `{"id":1,"connect":{}}`, heard: `"connect"`, ping: "{}", pong: "{}"}
)

// hubs measures all peers with members, each with a fresh process in each round.
func (b *bench) hubs(ctx context.Context, peers []*peer, r *report) error {
	peers = slices.DeleteFunc(slices.Clone(peers), func(p *peer) bool { return p.hub == nil })
	for round := range r.rounds {
		for i := range peers {
			p := peers[(round+i)%len(peers)]
			progress("round %d of %d: members, %s", round+1, r.rounds, p.name)
			err := b.hub(ctx, p, round, r)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				r.failures = append(r.failures, fmt.Sprintf("members of %s: %v", p.name, err))
			}
		}
	}
	return nil
}

// An audience is the clients of a hub.
type audience struct {
	heard atomic.Int64
	all   chan struct{} // gets a value when every client has the next message
	size  int64
}

// hub measures one peer, whose clients connect, wait, get broadcasts, and wait again.
func (b *bench) hub(ctx context.Context, p *peer, round int, r *report) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hub, err := p.start("-", "members")
	if err != nil {
		return err
	}
	defer hub.Stop()
	a := &audience{all: make(chan struct{}, 1), size: int64(b.count)}
	if err := a.connect(ctx, p, hub, 1); err != nil { // warms the process up
		return err
	}
	n := float64(b.count - 1)
	empty, err := hub.Memory()
	if err != nil {
		return err
	}
	before, err := hub.CPU()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := a.connect(ctx, p, hub, b.count-1); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := hub.CPU()
	if err != nil {
		return err
	}
	settled, err := b.memory(ctx, hub)
	if err != nil {
		return err
	}
	opening := metrics{
		openingCPU: float64((after - before).Microseconds()) / n, openingTime: took.Seconds() * 1e3,
		opened: float64(settled-empty) / n,
	}
	for _, size := range b.sizes {
		m, err := b.broadcast(ctx, a, hub, size)
		if err != nil {
			return err
		}
		r.add(round, fmt.Sprintf("%d B", size), p, m)
	}
	if settled, err = b.memory(ctx, hub); err != nil {
		return err
	}
	opening[used] = float64(settled-empty) / n
	r.add(round, "WebSocket", p, opening)
	return nil
}

// memory returns the memory of a hub once it has had nothing to do for a while.
func (b *bench) memory(ctx context.Context, hub *part) (int64, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(b.settle):
		return hub.Memory()
	}
}

// broadcast sends messages to all, each when all have the one before.
func (b *bench) broadcast(ctx context.Context, a *audience, hub *part, size int) (metrics, error) {
	var times []float64
	before, err := hub.CPU()
	if err != nil {
		return nil, err
	}
	for range b.sends {
		began := time.Now()
		if _, err := hub.ask(role.Command{Publish: 1, Topic: role.Room, Publishers: 1, Size: size}); err != nil {
			return nil, err
		}
		select {
		case <-a.all:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(role.Patience):
			return nil, fmt.Errorf("%d of %d members got no message", a.size-a.heard.Load()%a.size, a.size)
		}
		times = append(times, time.Since(began).Seconds()*1e3)
	}
	after, err := hub.CPU()
	return metrics{deliveryCPU: float64((after - before).Microseconds()) / float64(b.sends*b.count), delivery: median(times)}, err
}

// connect opens n WebSockets, which end with ctx.
func (a *audience) connect(ctx context.Context, p *peer, hub *part, n int) error {
	errs := make([]error, n)
	turns := make(chan struct{}, 50)
	var opening sync.WaitGroup
	for i := range errs {
		turns <- struct{}{}
		opening.Go(func() {
			errs[i] = a.join(ctx, "ws://"+hub.hello.Addr+p.hub.path, p.hub)
			<-turns
		})
	}
	opening.Wait()
	return errors.Join(errs...)
}

// join makes one client a member, which then counts messages.
func (a *audience) join(ctx context.Context, url string, d *dialect) error {
	conn, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return err
	}
	if d.say != "" {
		if err := conn.Write(ctx, websocket.MessageText, []byte(d.say)); err != nil {
			conn.CloseNow()
			return err
		}
	}
	for {
		_, message, err := conn.Read(ctx)
		if err != nil {
			conn.CloseNow()
			return err
		}
		if bytes.Contains(message, []byte(d.heard)) {
			break
		}
	}
	go func() {
		defer conn.CloseNow()
		for {
			_, message, err := conn.Read(ctx)
			if err != nil {
				return
			}
			switch {
			case role.IsMessage(message):
				if a.heard.Add(1)%a.size == 0 {
					select {
					case a.all <- struct{}{}:
					case <-ctx.Done():
						return
					}
				}
			case string(message) == d.ping:
				_ = conn.Write(ctx, websocket.MessageText, []byte(d.pong)) // or the next Read fails
			}
		}
	}()
	return nil
}
