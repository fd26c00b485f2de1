package hub

import (
	"context"
	"fmt"
	"time"
)

// Ask asks the members that who selects, on all nodes, and returns a reply for each of them: its
// answer, or in Err why there is none. It waits until all have replied or ctx ends, or for
// [Options].Timeout if ctx has no deadline. This asks a user, on whichever node:
//
//	replies, err := h.Ask(ctx, hub.Who{IDs: []string{"ann"}}, hub.Text([]byte("ready?")))
//
// A member can answer if it is one of [Hub.Handler] whose client speaks [Protocol] and says that
// it answers, as that of [Client] does. Others aren't asked. Err tells of these at once, and also
// of a member that leaves, whose client answers with an error, or to which 64 questions are open.
// The Err of a member that hasn't answered in time wraps [context.DeadlineExceeded], or the
// error of ctx; members of other nodes have up to 0.1 s less. Answers that come later, or again,
// are ignored. An answer has at most [HandlerOptions].ReadLimit bytes.
//
// A node that has died, or hasn't told of all its members in time, has a reply without a Member.
// An error of Ask says that the other nodes weren't asked; the replies of this node are returned
// all the same.
//
// The question is sent to each node, which returns what its members reply.
func (h *Hub) Ask(ctx context.Context, who Who, f *Frame) ([]Reply, error) {
	limited, cancel := h.limit(ctx)
	defer cancel()
	e := envelope{kind: kindQuestion, node: h.id, to: who.to(), except: who.except()}
	p := h.ask(&e, f)
	if who.Local || len(e.to) == 0 {
		return p.all(limited), nil
	}
	q := h.question(everybody)
	number := h.asked.begin(q)
	defer h.asked.end(number)
	end, _ := limited.Deadline()
	c := call{number: number, limit: time.Until(end), outcome: kindText, data: f.payload}
	if f.binary {
		c.outcome = kindBinary
	}
	e.payload = c.append(nil)
	err := h.bus.Publish(limited, h.topic(everybody), e.append(nil))
	replies := p.all(limited)
	if err != nil {
		return replies, fmt.Errorf("hub: other nodes were not asked: %w", err)
	}
	q.await(limited, h.opts.Timeout/20)
	return append(replies, q.collect(limited)...), nil
}

// Ask asks this member alone, and returns its answer, or why there is none, as [Hub.Ask] does. A
// callback of the handler must not ask its own member: nothing is read from the client until the
// callback returns.
func (m *Member) Ask(ctx context.Context, f *Frame) ([]byte, error) {
	limited, cancel := m.hub.limit(ctx)
	defer cancel()
	p := m.hub.newPoll(f)
	p.ask(m)
	r := p.all(limited)[0]
	return r.Data, r.Err
}

// limit returns a context that ends with ctx, and after Timeout if ctx has no deadline.
func (h *Hub) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, h.opts.Timeout)
}

// ask asks the members of this node that an envelope is for.
func (h *Hub) ask(e *envelope, f *Frame) *poll {
	p := h.newPoll(f)
	for i := range e.to {
		for m := range h.selected(e.to, i, e.except) {
			p.ask(m)
		}
	}
	return p
}

// questioned asks the members of this node what another node wants to know. ctx ends with Run.
func (h *Hub) questioned(ctx context.Context, e *envelope) error {
	c, err := parseCall(e.payload)
	if err != nil {
		return err
	}
	p := h.ask(e, &Frame{payload: c.data, binary: c.outcome == kindBinary})
	// The last reply has to be there when the other node stops waiting.
	limit := c.limit - min(c.limit/20, 100*time.Millisecond)
	h.asked.answers.Go(func() { // messages must not wait for members
		limited, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		h.report(limited, e.node, c.number, p)
	})
	return nil
}

// report sends a node the replies of members, in parts, until all have replied, which they have
// soon after ctx has ended.
func (h *Hub) report(ctx context.Context, node string, question uint64, p *poll) {
	for sent, all := 0, false; !all; {
		var replies []Reply
		replies, all = p.next(ctx)
		parts := divide(replies, Reply.size)
		for i, part := range parts {
			sent++
			list := rollCall{Question: question, Parts: sent, Replies: wireReplies(part)}
			if !all || i < len(parts)-1 {
				list.Parts++ // there will be another one
			}
			out := envelope{kind: kindAnswer, payload: marshal(list)}
			if h.inform(context.WithoutCancel(ctx), nodeKey+node, out) != nil {
				p.end(context.Canceled)
				return
			}
		}
	}
}
