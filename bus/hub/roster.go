package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
)

// MemberInfo describes a member of any node. Nodes send it to each other as JSON, so
// bytes of an ID or a room that aren't UTF-8 arrive as the replacement character.
type MemberInfo struct {
	ID    string          `json:"id"`
	Node  string          `json:"node"`
	Rooms []string        `json:"rooms"`
	Data  json.RawMessage `json:"data"`
}

// A Roster is a list of members of all nodes.
type Roster struct {
	Members []MemberInfo
	// Nodes is the number of nodes that are known, this one included. Answered is
	// the number of those that have listed all of their members in time. If it is
	// less than Nodes, members may be missing.
	Nodes, Answered int
}

// Members returns the members of all nodes that who selects, in no order. It waits
// for the other nodes that are known until ctx ends or [Options].Timeout is over, and
// returns the members it has heard of by then. An error says that the other nodes
// couldn't be asked; the members of this node are returned all the same.
func (h *Hub) Members(ctx context.Context, who Who) (Roster, error) {
	var here []MemberInfo
	for m := range h.Local(who) {
		here = append(here, m.Info())
	}
	e := envelope{kind: kindAsk, node: h.id, to: who.to(), except: who.except()}
	if who.Local || len(e.to) == 0 {
		return Roster{Members: here, Nodes: 1, Answered: 1}, nil
	}
	q := &question{done: make(chan struct{}), waiting: make(map[string]int)}
	h.nodes.mu.Lock()
	for id := range h.nodes.seen {
		q.waiting[id] = 0
	}
	h.nodes.mu.Unlock()
	if len(q.waiting) == 0 {
		close(q.done)
	}
	number := h.asked.begin(q)
	defer h.asked.end(number)
	e.payload = marshal(rollCall{Question: number})

	ctx, cancel := context.WithTimeout(ctx, h.opts.Timeout)
	defer cancel()
	err := h.bus.Publish(ctx, h.topic(everybody), e.append(nil))
	if err != nil {
		err = fmt.Errorf("hub: other nodes were not asked: %w", err)
	} else {
		select {
		case <-q.done:
		case <-ctx.Done():
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return Roster{
		Members: append(here, q.members...), Nodes: 1 + q.answered + len(q.waiting), Answered: 1 + q.answered,
	}, err
}

// asked are the questions of this node that aren't answered by all others yet.
type asked struct {
	answers sync.WaitGroup // the answers that this node is giving to others; grows in receive only

	mu   sync.Mutex
	last uint64               // the number of the last question
	open map[uint64]*question // by number
}

// question collects the answers of other nodes.
type question struct {
	done chan struct{} // closed when all nodes that were known have answered

	mu       sync.Mutex
	waiting  map[string]int // by node that has not answered: the parts of its answer that have come
	answered int            // nodes
	members  []MemberInfo
}

// rollCall is the payload of a question, and of each part of an answer. A node with
// many members sends several parts, so that no message is huge.
type rollCall struct {
	Question uint64       `json:"question"`
	Parts    int          `json:"parts,omitempty"`
	Members  []MemberInfo `json:"members,omitempty"`
}

// answerPart is the number of members in one part of an answer.
const answerPart = 1000

func (a *asked) begin(q *question) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		a.open = make(map[uint64]*question)
	}
	a.last++
	a.open[a.last] = q
	return a.last
}

func (a *asked) end(number uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, number)
}

// add adds a part of a node's answer to the question that it is for.
func (a *asked) add(e *envelope) error {
	var part rollCall
	if err := json.Unmarshal(e.payload, &part); err != nil {
		return err
	}
	a.mu.Lock()
	q := a.open[part.Question]
	a.mu.Unlock()
	if q == nil {
		return nil // Members has returned already
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.members = append(q.members, part.Members...)
	q.waiting[e.node]++
	if q.waiting[e.node] < part.Parts {
		return nil
	}
	delete(q.waiting, e.node)
	q.answered++
	if len(q.waiting) == 0 {
		select {
		case <-q.done: // closed before: this node wasn't known when the question was asked
		default:
			close(q.done)
		}
	}
	return nil
}

// answer answers another node's question with the members of this node.
func (h *Hub) answer(e *envelope) {
	var call rollCall
	if err := json.Unmarshal(e.payload, &call); err != nil {
		h.misfit(h.topic(everybody), err)
		return
	}
	var members []MemberInfo
	for i := range e.to {
		for m := range h.selected(e.to, i, e.except) {
			members = append(members, m.Info())
		}
	}
	parts := slices.Collect(slices.Chunk(members, answerPart))
	if len(parts) == 0 {
		parts = append(parts, nil)
	}
	for _, part := range parts {
		out := envelope{kind: kindAnswer, node: h.id,
			payload: marshal(rollCall{Question: call.Question, Parts: len(parts), Members: part})}
		err := h.bus.Publish(context.Background(), h.topic(nodeKey+e.node), out.append(nil))
		if err != nil {
			h.opts.Logger.Debug("an answer didn't reach another node", "node", e.node, "err", err)
			return
		}
	}
}
