package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
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
// returns the members it has heard of by then. A node that hasn't answered a
// question of any node within Timeout may have died: unless it is heard within a heartbeat
// all nodes forget it, and if only such nodes are missing, Members waits for a twentieth of
// Timeout. An error says that the other nodes couldn't be asked; the members of this node
// are returned all the same.
func (h *Hub) Members(ctx context.Context, who Who) (Roster, error) {
	var here []MemberInfo
	for m := range h.Local(who) {
		here = append(here, m.Info())
	}
	e := envelope{kind: kindAsk, node: h.id, to: who.to(), except: who.except()}
	if who.Local || len(e.to) == 0 {
		return Roster{Members: here, Nodes: 1, Answered: 1}, nil
	}
	q := h.question(everybody)
	number := h.asked.begin(q)
	defer h.asked.end(number)
	e.payload = marshal(rollCall{Question: number})

	limited, cancel := context.WithTimeout(ctx, h.opts.Timeout)
	defer cancel()
	err := h.bus.Publish(limited, h.topic(everybody), e.append(nil))
	if err != nil {
		err = fmt.Errorf("hub: other nodes were not asked: %w", err)
	} else if q.await(limited, h.opts.Timeout/20); limited.Err() != nil && ctx.Err() == nil {
		h.doubt(q)
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
	sure chan struct{} // closed when those of them have that aren't doubtful

	mu       sync.Mutex
	waiting  map[string]*waiting // by node that has not answered
	trusted  int                 // number of nodes in waiting that aren't doubtful
	answered int                 // nodes
	members  []MemberInfo        // of a question of Members
	replies  []Reply             // of one of Call or Ask
}

// waiting is a node whose answer isn't complete.
type waiting struct {
	parts    int // that have come
	doubtful bool
}

// question returns a question to a node, or to everybody, which are all other nodes that are
// known. A node that isn't known is doubtful.
func (h *Hub) question(name string) *question {
	q := &question{done: make(chan struct{}), sure: make(chan struct{}), waiting: make(map[string]*waiting)}
	n := &h.nodes
	n.mu.Lock()
	defer n.mu.Unlock()
	if name != everybody {
		q.waiting[name] = &waiting{doubtful: name != h.id && (n.seen[name] == nil || n.seen[name].doubtful)}
	} else {
		for id, other := range n.seen {
			q.waiting[id] = &waiting{doubtful: other.doubtful}
		}
	}
	for _, w := range q.waiting {
		if !w.doubtful {
			q.trusted++
		}
	}
	q.check()
	return q
}

// check closes the channels when their time has come. q.mu is held.
func (q *question) check() {
	if q.trusted == 0 {
		closeOnce(q.sure)
	}
	if len(q.waiting) == 0 {
		closeOnce(q.done)
	}
}

// closeOnce closes a channel unless it is closed.
func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// lose notes that nodes have left or are forgotten. Those that weren't known when they were asked
// are waited for only briefly anyway.
func (a *asked) lose(known func(id string) bool) {
	a.mu.Lock()
	open := slices.Collect(maps.Values(a.open))
	a.mu.Unlock()
	for _, q := range open {
		q.mu.Lock()
		for id, w := range q.waiting {
			if w.doubtful || known(id) {
				continue
			}
			delete(q.waiting, id)
			q.trusted--
			q.replies = append(q.replies, Reply{Node: id, Err: fmt.Errorf("hub: node %s has left", id)})
		}
		q.check()
		q.mu.Unlock()
	}
}

// await waits until all nodes have answered or ctx ends, but for those that are doubtful
// only for a brief time.
func (q *question) await(ctx context.Context, brief time.Duration) {
	select {
	case <-q.done:
		return
	case <-ctx.Done():
		return
	case <-time.After(brief):
	}
	select {
	case <-q.sure:
	case <-ctx.Done():
	}
}

// rollCall is the payload of a question, and of each part of an answer. A node with
// many members sends several parts, so that no message is huge.
type rollCall struct {
	Question uint64       `json:"question"`
	Parts    int          `json:"parts,omitempty"`
	Members  []MemberInfo `json:"members,omitempty"`
	Replies  []wireReply  `json:"replies,omitempty"` // of members, to [Hub.Ask]
}

// answerPart is the number of members in one part of an answer, and answerBytes about the size
// of what they say: buses refuse huge messages.
const answerPart, answerBytes = 1000, 1 << 20

// divide divides what is known of members, of which size returns how much that is, into
// parts. None are one part, too.
func divide[T any](members []T, size func(T) int) (parts [][]T) {
	first, bytes := 0, 0
	for i, m := range members {
		n := size(m)
		if i > first && (i-first == answerPart || bytes+n > answerBytes) {
			parts = append(parts, members[first:i])
			first, bytes = i, 0
		}
		bytes += n
	}
	return append(parts, members[first:])
}

// size returns about how many bytes an answer takes for a member.
func (m MemberInfo) size() int {
	size := len(m.ID) + len(m.Data)
	for _, room := range m.Rooms {
		size += len(room)
	}
	return size
}

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

// get returns a question that isn't over, or nil.
func (a *asked) get(number uint64) *question {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open[number]
}

// add adds a part of a node's answer to the question that it is for.
func (a *asked) add(e *envelope) error {
	var part rollCall
	if err := json.Unmarshal(e.payload, &part); err != nil {
		return err
	}
	q := a.get(part.Question)
	if q == nil {
		return nil // Members or Ask has returned already
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.members = append(q.members, part.Members...)
	for _, r := range part.Replies {
		q.replies = append(q.replies, r.from(e.node))
	}
	q.answer(e.node, part.Parts)
	return nil
}

// answer notes that a part of a node's answer has come. q.mu is held.
func (q *question) answer(node string, parts int) {
	w := q.waiting[node]
	if w == nil { // it wasn't known when the question was asked
		w = &waiting{doubtful: true}
		q.waiting[node] = w
	}
	if w.parts++; w.parts < parts {
		return
	}
	delete(q.waiting, node)
	if !w.doubtful {
		q.trusted--
	}
	q.answered++
	q.check()
}

// answerCall answers another node's question with the members of this node.
func (h *Hub) answerCall(e *envelope) {
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
	parts := divide(members, MemberInfo.size)
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
