package hub

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Reply is what a node has answered to [Hub.CallAll], or a member to [Hub.Ask].
type Reply struct {
	Node   string // the ID of the node
	Member string // the ID of the member; "" if it is the reply of a node
	Data   []byte
	Err    error // why there is no Data, as [Hub.Call] or [Hub.Ask] says
}

// Call asks a node, whose [Options].Answer answers, and waits for it until ctx ends or
// [Options].Timeout is over; if the node may have died, for a twentieth of Timeout.
// [MemberInfo] and [Options].Node tell names of nodes. The node may be this one.
//
// An error says that the node couldn't be asked, or that it has no Answer, or is the text of
// the error that Answer has returned, or says that the node has left or is forgotten, or that it
// hasn't answered in time, and then wraps [context.DeadlineExceeded], or the error of ctx. A request reaches the node once or
// not at all; after an error Answer may have carried it out.
func (h *Hub) Call(ctx context.Context, node string, request []byte) ([]byte, error) {
	if node == "" {
		return nil, errors.New("hub: no node is named")
	}
	replies, err := h.call(ctx, node, request)
	if err != nil {
		return nil, err
	}
	return replies[0].Data, replies[0].Err
}

// CallAll asks all other nodes that are known, as [Hub.Call] asks one. It returns a reply for
// each, those that haven't answered included, in the order of their IDs. An error says that
// the nodes couldn't be asked.
func (h *Hub) CallAll(ctx context.Context, request []byte) ([]Reply, error) {
	return h.call(ctx, everybody, request)
}

// call asks a node, or everybody.
func (h *Hub) call(ctx context.Context, node string, request []byte) ([]Reply, error) {
	limited, cancel := context.WithTimeout(ctx, h.opts.Timeout)
	defer cancel()
	q := h.question(node)
	number := h.asked.begin(q)
	defer h.asked.end(number)
	end, _ := limited.Deadline()
	c := call{number: number, limit: time.Until(end), data: request}

	key := everybody
	if node != everybody {
		key = nodeKey + node
	}
	if key == nodeKey+h.id {
		go h.answerHere(limited, q, bytes.Clone(request)) // ends with limited, if Answer minds it
	} else {
		e := envelope{kind: kindCall, node: h.id, payload: c.append(nil)}
		if err := h.bus.Publish(limited, h.topic(key), e.append(nil)); err != nil {
			return nil, fmt.Errorf("hub: other nodes were not asked: %w", err)
		}
	}
	q.await(limited, h.opts.Timeout/20)
	return q.collect(limited), nil
}

// collect returns the replies, and one for each node that hasn't replied. ctx is what it was
// waited for.
func (q *question) collect(ctx context.Context) []Reply {
	q.mu.Lock()
	defer q.mu.Unlock()
	replies := slices.Clone(q.replies)
	for id := range q.waiting {
		why := ctx.Err()
		if why == nil {
			why = context.DeadlineExceeded // it may have died
		}
		replies = append(replies, Reply{Node: id, Err: fmt.Errorf("hub: node %s hasn't answered: %w", id, why)})
	}
	slices.SortFunc(replies, func(a, b Reply) int { return strings.Compare(a.Node, b.Node) })
	return replies
}

// call is the payload of a call, and of the reply to it, which has no limit but an outcome.
type call struct {
	number  uint64        // of the question
	limit   time.Duration // after which nobody waits for the reply any more
	outcome uint64
	data    []byte
}

const (
	callAnswered = iota
	callFailed   // data is the text of the error
	callRefused  // the node has no Answer
)

func (c call) append(b []byte) []byte {
	b = binary.AppendUvarint(b, c.number)
	b = binary.AppendUvarint(b, uint64(max(0, c.limit).Milliseconds()))
	b = binary.AppendUvarint(b, c.outcome)
	return append(b, c.data...)
}

// parseCall is the inverse of append. The data is a part of b and not a copy.
func parseCall(b []byte) (c call, err error) {
	var ms uint64
	for _, field := range []*uint64{&c.number, &ms, &c.outcome} {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			return c, errShort
		}
		*field, b = n, b[size:]
	}
	c.limit, c.data = time.Duration(min(ms, uint64(time.Hour/time.Millisecond)))*time.Millisecond, b
	return c, nil
}

// answerOf calls Answer, and returns the reply's outcome and data.
func (h *Hub) answerOf(ctx context.Context, node string, request []byte) (outcome uint64, data []byte) {
	if h.opts.Answer == nil {
		return callRefused, nil
	}
	data, err := h.opts.Answer(ctx, node, request)
	if err != nil {
		return callFailed, []byte(err.Error())
	}
	return callAnswered, data
}

// answerHere answers a call of this node to itself.
func (h *Hub) answerHere(ctx context.Context, q *question, request []byte) {
	outcome, data := h.answerOf(ctx, h.id, request)
	q.reply(h.id, outcome, data)
}

// called answers a call of another node. ctx ends with Run.
func (h *Hub) called(ctx context.Context, e *envelope) error {
	c, err := parseCall(e.payload)
	if err != nil {
		return err
	}
	// Messages must not wait for Answer.
	h.asked.answers.Go(func() {
		limited, cancel := context.WithTimeout(ctx, c.limit)
		defer cancel()
		out := call{number: c.number}
		out.outcome, out.data = h.answerOf(limited, e.node, c.data)
		if limited.Err() == nil {
			reply := envelope{kind: kindReply, node: h.id, payload: out.append(nil)}
			if err := h.bus.Publish(limited, h.topic(nodeKey+e.node), reply.append(nil)); err != nil {
				h.opts.Logger.Debug("a reply didn't reach another node", "node", e.node, "err", err)
			}
		}
	})
	return nil
}

// replied deals with the reply of another node.
func (h *Hub) replied(e *envelope) error {
	c, err := parseCall(e.payload)
	if err != nil {
		return err
	}
	if q := h.asked.get(c.number); q != nil { // else Call has returned already
		q.reply(e.node, c.outcome, c.data)
	}
	return nil
}

// reply notes a node's reply.
func (q *question) reply(node string, outcome uint64, data []byte) {
	r := Reply{Node: node, Data: data}
	switch outcome {
	case callAnswered:
	case callRefused:
		r.Data, r.Err = nil, errors.New("hub: node "+node+" has no Answer")
	default:
		r.Data, r.Err = nil, errors.New(string(data))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.replies = append(q.replies, r)
	q.answer(node, 1)
}
