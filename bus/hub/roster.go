package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
)

// MemberInfo tells about a member of any node. It travels as JSON: what of a name
// isn't UTF-8 is replaced.
type MemberInfo struct {
	ID    string          `json:"id"`
	Node  string          `json:"node"`
	Rooms []string        `json:"rooms"`
	Data  json.RawMessage `json:"data"`
}

// Roster is who is there.
type Roster struct {
	Members []MemberInfo
	// Nodes is how many nodes are known, this one included, and Answered how many
	// of them have answered, with all they have: if that is less, members may be
	// missing.
	Nodes, Answered int
}

// Members returns the members that who selects, of all nodes, in no order. It
// waits for the nodes that are known until ctx or [Options].Timeout ends, and
// returns what it has got by then. An error says that the others couldn't be
// asked; the members of this node are returned with it.
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

// asked are the questions whose answers are awaited.
type asked struct {
	answers sync.WaitGroup // to others, on their way; grows in receive only

	mu   sync.Mutex
	last uint64
	open map[uint64]*question
}

// question collects the answers of other nodes.
type question struct {
	done chan struct{}

	mu       sync.Mutex
	waiting  map[string]int // parts that have come, by node
	answered int
	members  []MemberInfo
}

// rollCall is the payload of a question and of the parts of its answers. A node
// with many members sends more than one part, so that no message is huge.
type rollCall struct {
	Question uint64       `json:"question"`
	Parts    int          `json:"parts,omitempty"`
	Members  []MemberInfo `json:"members,omitempty"`
}

const answerPart = 1000 // members

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

// add takes a part of a node's answer.
func (a *asked) add(e *envelope) error {
	var part rollCall
	if err := json.Unmarshal(e.payload, &part); err != nil {
		return err
	}
	a.mu.Lock()
	q := a.open[part.Question]
	a.mu.Unlock()
	if q == nil {
		return nil // it comes too late
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
		case <-q.done: // a node that wasn't known comes behind the others
		default:
			close(q.done)
		}
	}
	return nil
}

// answer answers another node's question.
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
			h.opts.Log.Debug("an answer didn't reach another node", "node", e.node, "err", err)
			return
		}
	}
}
