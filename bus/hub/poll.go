package hub

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// memberPolls is the number of questions to one member that may be open.
const memberPolls = 64

// A poll is a question to members of this node. It stands in the places of each of them as long
// as it is open there. Whoever takes it out, with the member's mu held, adds the member's reply:
//
//	socket.message  the client has answered
//	Member.finish   the member has ended
//	poll.end        nobody waits any more
//
// So each member replies once, an answer to what isn't open is dropped, and nothing is kept of a
// poll that is over.
type poll struct {
	number  uint64        // of the question, which the client repeats
	frame   *Frame        // the question, behind a line with the number
	members []*Member     // those that were asked
	more    chan struct{} // has a value when replies have come

	mu      sync.Mutex // may be taken with that of a member held
	open    int        // the number of members that haven't replied
	replies []Reply    // those that next hasn't returned
}

// newPoll returns a poll of nobody yet.
func (h *Hub) newPoll(f *Frame) *poll {
	p := &poll{number: h.polls.Add(1), more: make(chan struct{}, 1)}
	p.frame = f.behind(marshal(line{Ask: p.number}))
	return p
}

// ask puts the question into the queue of a member, or replies for it. Only the goroutine that
// has made the poll calls it, before next.
func (p *poll) ask(m *Member) {
	p.mu.Lock()
	p.open++
	p.mu.Unlock()
	s, _ := m.conn.(*socket)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case s == nil || !s.lines:
		p.reply(m, nil, fmt.Errorf("hub: member %q can't answer: its client doesn't speak %s, or doesn't say that it answers", m.id, Protocol))
	case m.ended:
		p.reply(m, nil, m.hasLeft())
	case len(m.places.polls) == memberPolls:
		p.reply(m, nil, fmt.Errorf("hub: member %q isn't asked: it has %d open questions", m.id, memberPolls))
	default:
		put(&m.places.polls, p.number, p)
		p.members = append(p.members, m)
		_, fits := m.queue.push(p.frame, &m.hub.opts, false)
		m.wake()
		if !fits {
			m.tooSlow()
		}
	}
}

// reply adds a member's reply. The member's mu is held.
func (p *poll) reply(m *Member, data []byte, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	p.replies = append(p.replies, Reply{Node: m.hub.id, Member: m.id, Data: data, Err: err})
	select {
	case p.more <- struct{}{}:
	default: // next will look anyway
	}
}

// next waits until there are replies, and returns them and whether all members have replied.
// Those that haven't when ctx ends do so with its error.
func (p *poll) next(ctx context.Context) (replies []Reply, all bool) {
	for {
		p.mu.Lock()
		replies, all = p.replies, p.open == 0
		p.replies = nil
		p.mu.Unlock()
		if all || len(replies) > 0 {
			return replies, all
		}
		select {
		case <-p.more:
		case <-ctx.Done():
			p.end(ctx.Err())
		}
	}
}

// all returns the replies of all members.
func (p *poll) all(ctx context.Context) (replies []Reply) {
	for all := false; !all; {
		var some []Reply
		some, all = p.next(ctx)
		replies = append(replies, some...)
	}
	return replies
}

// end replies for those that haven't.
func (p *poll) end(why error) {
	for _, m := range p.members {
		m.mu.Lock()
		m.replied(p.number, nil, isLate(m.id, why))
		m.mu.Unlock()
	}
}

func isLate(member string, why error) error {
	return fmt.Errorf("hub: member %q hasn't answered: %w", member, why)
}

// replied closes a question to the member, if it is open. m.mu is held.
func (m *Member) replied(number uint64, data []byte, err error) {
	if p := m.places.polls[number]; p != nil {
		delete(m.places.polls, number)
		p.reply(m, data, err)
	}
}

// leavePolls closes the questions to a member that ends. m.mu is held.
func (m *Member) leavePolls() {
	for number := range m.places.polls {
		m.replied(number, nil, m.hasLeft())
	}
}

func (m *Member) hasLeft() error { return fmt.Errorf("hub: member %q has left", m.id) }

// wireReply is a Reply as nodes send it to each other.
type wireReply struct {
	Member string `json:"member"`
	Data   []byte `json:"data,omitempty"`
	Err    string `json:"err,omitempty"`
	Late   bool   `json:"late,omitempty"` // Err wraps context.DeadlineExceeded
}

func wireReplies(replies []Reply) []wireReply {
	out := make([]wireReply, len(replies))
	for i, r := range replies {
		out[i] = wireReply{Member: r.Member, Data: r.Data}
		if r.Err != nil {
			out[i].Err, out[i].Late = r.Err.Error(), errors.Is(r.Err, context.DeadlineExceeded)
		}
	}
	return out
}

// from returns the reply of a member of a node.
func (w wireReply) from(node string) Reply {
	r := Reply{Node: node, Member: w.Member, Data: w.Data}
	switch {
	case w.Late:
		r.Err = isLate(w.Member, context.DeadlineExceeded)
	case w.Err != "":
		r.Err = errors.New(w.Err)
	}
	return r
}

// size returns about how many bytes a reply takes between nodes.
func (r Reply) size() int { return 60 + len(r.Member) + len(r.Data)*4/3 }
