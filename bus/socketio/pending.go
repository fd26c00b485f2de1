package socketio

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// pending is a request that waits for answers of the other members. ask creates it
// and waits; deliver and the heartbeats change it.
//
//	event                            who            effect
//	an answer of another member      deliver        nodes++, its part is kept; members loses it
//	a clientCount (of a broadcast)   deliver        as above, and reached grows by its count
//	an ack (of a broadcast)          deliver        its part is kept; no node is counted
//	the own answer                   ask            its part is kept; no node is counted
//	another member has left          heartbeats     expected--, if it hasn't answered
//	ctx ends, or Run returns         wait           an IncompleteError, with what has arrived
//
// It is complete when nodes reaches expected; a broadcast also needs an ack of each
// client that was reached, and a roomsOf is complete with its first answer. All
// fields behind mu are guarded by it.
type pending struct {
	kind    kind
	arrived chan struct{} // holds a token when something has changed

	mu       sync.Mutex
	expected int             // other members that should answer
	members  map[string]bool // those that haven't answered yet; nil without heartbeats
	answers  []*message      // each holds a part of the result
	nodes    int             // members that have answered
	reached  int             // clients that got a broadcast
}

// answered are the kinds of answers to each kind of request. A node whose customHook
// returns undefined answers a customRequest with a message that reads as done.
var answered = map[kind][]kind{
	broadcast: {clientCount, ack}, serverSideEmit: {serverSideAnswer}, customRequest: {customAnswer, done},
	fetchSockets: {socketList}, socketIDs: {socketIDList}, allRooms: {roomList}, roomsOf: {roomList},
}

// add takes an answer. Answers of another kind than the request's are ignored. own
// is set for the answer of this member, which isn't among the expected.
func (p *pending) add(m *message, own bool) {
	if !slices.Contains(answered[p.kind], m.kind) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.kind == clientCount {
		p.reached += m.count
	} else {
		p.answers = append(p.answers, m)
	}
	if m.kind != ack && !own && (p.members == nil || p.members[m.uid]) {
		delete(p.members, m.uid)
		p.nodes++
	}
	p.wake()
}

// memberLeft stops waiting for a member that has left.
func (p *pending) memberLeft(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.members[uid] {
		delete(p.members, uid)
		p.expected--
		p.wake()
	}
}

// wake makes wait look at the request again.
func (p *pending) wake() {
	select {
	case p.arrived <- struct{}{}:
	default:
	}
}

// complete tells whether all answers have arrived.
func (p *pending) complete() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.kind {
	case roomsOf: // only the node that has the socket answers
		return len(p.answers) > 0 || p.expected == 0
	case broadcast:
		return p.nodes >= p.expected && len(p.answers) >= p.reached
	}
	return p.nodes >= p.expected
}

// wait returns the answers when they are complete. If ctx ends or Run returns
// before, it returns those that have arrived, with an IncompleteError.
func (p *pending) wait(ctx context.Context, c *Cluster) ([]*message, error) {
	var err error
	for err == nil && !p.complete() {
		select {
		case <-p.arrived:
		case <-ctx.Done():
			err = ctx.Err()
		case <-c.ended:
			err = c.over(ctx)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		err = &IncompleteError{Nodes: p.nodes, Expected: p.expected, Reached: p.reached, Err: err}
		if p.kind == broadcast {
			err.(*IncompleteError).Clients = len(p.answers)
		}
	}
	return slices.Clone(p.answers), err
}

// An IncompleteError says that some answers didn't arrive within the time limit. It
// is returned beside the answers that did arrive.
type IncompleteError struct {
	// Nodes is the number of other members that have answered, Expected the number
	// of those that should have.
	Nodes, Expected int
	// Clients is the number of clients that have acknowledged an event. Reached is
	// the number of clients that got it, as far as the members that answered have
	// said.
	Clients, Reached int
	// Err is why waiting ended.
	Err error
}

// Error says how many have answered, and why waiting ended.
func (e *IncompleteError) Error() string {
	s := fmt.Sprintf("socketio: %d of %d other nodes answered", e.Nodes, e.Expected)
	if e.Reached > 0 {
		s += fmt.Sprintf(", %d of %d clients", e.Clients, e.Reached)
	}
	return fmt.Sprintf("%s: %v", s, e.Err)
}

// Unwrap returns Err.
func (e *IncompleteError) Unwrap() error { return e.Err }
