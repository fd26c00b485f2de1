package socketio

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"
)

// defaultTimeout is how long npm's adapters wait for answers.
const defaultTimeout = 5 * time.Second

// request is a question to the other members, and what has been answered.
type request struct {
	kind kind
	come chan struct{} // something has come

	mu       sync.Mutex
	expected int             // nodes that are to answer
	members  map[string]bool // who they are and haven't yet; nil where nobody knows
	answers  []*message      // each with a part of the result
	nodes    int             // that have answered
	reached  int             // clients of a broadcast
}

// answered are the kinds of answers to each question. A customRequest is
// answered by undefined too.
var answered = map[kind][]kind{
	broadcast: {clientCount, ack}, serverSideEmit: {serverSideAnswer}, customRequest: {customAnswer, done},
	fetchSockets: {socketList}, socketIDs: {socketIDList}, allRooms: {roomList}, roomsOf: {roomList},
}

// add takes an answer. Only those of other nodes are expected.
func (r *request) add(m *message, own bool) {
	if !slices.Contains(answered[r.kind], m.kind) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.kind == clientCount {
		r.reached += m.count
	} else {
		r.answers = append(r.answers, m)
	}
	if m.kind != ack && !own && (r.members == nil || r.members[m.uid]) {
		delete(r.members, m.uid)
		r.nodes++
	}
	r.poke()
}

// gone has nobody wait for a member any more.
func (r *request) gone(uid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.members[uid] {
		delete(r.members, uid)
		r.expected--
		r.poke()
	}
}

func (r *request) poke() {
	select {
	case r.come <- struct{}{}:
	default:
	}
}

// complete tells whether nothing is missing.
func (r *request) complete() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.kind {
	case roomsOf: // only who has the socket answers
		return len(r.answers) > 0 || r.expected == 0
	case broadcast:
		return r.nodes >= r.expected && len(r.answers) >= r.reached
	}
	return r.nodes >= r.expected
}

// wait returns what has come when nothing is missing or waiting has to end.
func (r *request) wait(ctx context.Context, c *Cluster) ([]*message, error) {
	var err error
	for err == nil && !r.complete() {
		select {
		case <-r.come:
		case <-ctx.Done():
			err = ctx.Err()
		case <-c.ended:
			err = c.over(ctx)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		err = &Incomplete{Nodes: r.nodes, Expected: r.expected, Reached: r.reached, Err: err}
		if r.kind == broadcast {
			err.(*Incomplete).Clients = len(r.answers)
		}
	}
	return slices.Clone(r.answers), err
}

// ask sends a question and returns the answers, this member's own included.
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
	r := &request{kind: m.kind, come: make(chan struct{}, 1)}
	if r.expected, err = c.others(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock() // so that gone knows of the request, or all of who has gone
	if r.members = c.nodes.all(); r.members != nil {
		r.expected = len(r.members)
	}
	c.asked[m.id] = r
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.asked, m.id)
		c.mu.Unlock()
	}()
	own := func(a *message) {
		if err := a.asRead(); err != nil {
			c.lost(err)
			return
		}
		r.add(a, true)
	}
	if err := c.actLocally(m, own); err != nil {
		return nil, err
	}
	if m.kind != customRequest {
		if a := c.answer(m); a != nil {
			own(a)
		}
	}
	if !r.complete() {
		if err := sendFrames(ctx, c.link, m, frames); err != nil {
			return nil, err
		}
	}
	return r.wait(ctx, c)
}

// others returns the number of other members, once this one can hear them.
func (c *Cluster) others(ctx context.Context) (n int, err error) {
	select {
	case <-c.ready:
	case <-c.ended:
		return 0, fmt.Errorf("socketio: %w", c.over(ctx))
	case <-ctx.Done():
		err := ctx.Err()
		if why := c.away.Load(); why != nil {
			err = fmt.Errorf("%w: %w", err, *why)
		}
		return 0, fmt.Errorf("socketio: not connected to Redis: %w", err)
	}
	all, _ := c.adapter.channels(c.nsp, c.uid)
	if len(all) == 0 {
		return len(c.nodes.all()), nil
	}
	n, err = c.link.subscribers(ctx, all[0], c.adapter.sharded())
	if !c.guest {
		n = max(n-1, 0)
	}
	return n, err
}

// over is why Run has returned: a guest's has the request's own limit.
func (c *Cluster) over(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.end
}

func (c *Cluster) request(id string) *request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[id]
}
