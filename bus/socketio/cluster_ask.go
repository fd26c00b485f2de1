package socketio

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"
)

// defaultTimeout is how long the packages' adapters wait for answers.
const defaultTimeout = 5 * time.Second

// ask sends a request and returns the answers, including the one of this member. The
// steps have an order:
//
//	1  encode      fails before anything else happens if the nodes have no such request
//	2  others      waits until answers will be received, then counts who will answer
//	3  asked       registers the request, so that deliver finds it when answers arrive
//	4  own answer  is added without Redis
//	5  send        unless nobody else will answer
//	6  wait        until the answers are complete, ctx ends or Run returns
//
// c.mu is held in step 3 only.
func (c *Cluster) ask(ctx context.Context, m *message) ([]*message, error) {
	if deadline, ok := ctx.Deadline(); ok && m.kind == broadcast {
		m.timeout = milliseconds(time.Until(deadline))
	}
	m = c.adapter.requestFor(m)
	m.uid, m.id = c.uid, rand.Text()
	frames, err := encode(c.adapter, m)
	if err != nil {
		return nil, err
	}
	p := &pending{kind: m.kind, arrived: make(chan struct{}, 1)}
	if p.expected, err = c.others(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock() // so that memberLeft sees the request, or the list lacks the member that left
	if p.members = c.members.all(); p.members != nil {
		p.expected = len(p.members)
	}
	c.asked[m.id] = p
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.asked, m.id)
		c.mu.Unlock()
	}()
	own := func(a *message) {
		if err := a.asRead(); err != nil {
			c.logLostAnswer(err)
			return
		}
		p.add(a, true)
	}
	if err := c.applyLocally(m, own); err != nil {
		return nil, err
	}
	if m.kind != customRequest {
		if a := c.answer(m); a != nil {
			own(a)
		}
	}
	if !p.complete() {
		if err := sendFrames(ctx, c.link, m, frames); err != nil {
			return nil, err
		}
	}
	return p.wait(ctx, c)
}

// others returns the number of other members, after waiting until this one receives
// their messages. Members are counted as subscribers of the first channel that all
// members share or, if there are heartbeats, as those that announced themselves.
func (c *Cluster) others(ctx context.Context) (n int, err error) {
	select {
	case <-c.ready:
	case <-c.ended:
		return 0, fmt.Errorf("socketio: %w", c.over(ctx))
	case <-ctx.Done():
		err := ctx.Err()
		if why := c.notReady.Load(); why != nil {
			err = fmt.Errorf("%w: %w", err, *why)
		}
		return 0, fmt.Errorf("socketio: not connected to Redis: %w", err)
	}
	all, _ := c.adapter.channels(c.nsp, c.uid)
	if len(all) == 0 {
		return len(c.members.all()), nil
	}
	n, err = c.link.subscribers(ctx, all[0], c.adapter.sharded())
	if !c.guest {
		n = max(n-1, 0)
	}
	return n, err
}

// over returns why Run has returned. The ctx of a guest's Run is that of its
// request, so the end of ctx is the better reason.
func (c *Cluster) over(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.end
}

// pendingRequest returns the request with an ID, nil if there is none that waits.
func (c *Cluster) pendingRequest(id string) *pending {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[id]
}
