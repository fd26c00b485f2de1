package socketio

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// pending is a request to the other members, and what has been answered.
type pending struct {
	kind    kind
	arrived chan struct{} // something has come

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

// gone has nobody wait for a member any more.
func (p *pending) memberLeft(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.members[uid] {
		delete(p.members, uid)
		p.expected--
		p.wake()
	}
}

func (p *pending) wake() {
	select {
	case p.arrived <- struct{}{}:
	default:
	}
}

// complete tells whether nothing is missing.
func (p *pending) complete() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.kind {
	case roomsOf: // only who has the socket answers
		return len(p.answers) > 0 || p.expected == 0
	case broadcast:
		return p.nodes >= p.expected && len(p.answers) >= p.reached
	}
	return p.nodes >= p.expected
}

// wait returns what has come when nothing is missing or waiting has to end.
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

// IncompleteError is the error beside the answers that did come when others didn't
// within the time limit.
type IncompleteError struct {
	// Nodes have answered, of Expected ones.
	Nodes, Expected int
	// Clients have acknowledged an event, of Reached ones, as far as the Nodes
	// have told how many they reached.
	Clients, Reached int
	// Err is why waiting ended.
	Err error
}

// Error says how many have answered.
func (e *IncompleteError) Error() string {
	s := fmt.Sprintf("socketio: %d of %d other nodes answered", e.Nodes, e.Expected)
	if e.Reached > 0 {
		s += fmt.Sprintf(", %d of %d clients", e.Clients, e.Reached)
	}
	return fmt.Sprintf("%s: %v", s, e.Err)
}

// Unwrap returns why waiting ended.
func (e *IncompleteError) Unwrap() error { return e.Err }
