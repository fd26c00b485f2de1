package redisclient

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// A lane has the messages that wait for one that is under way. It is in Publisher.lanes as
// long as there is one; its fields are under Publisher.mu. A message that finds no lane makes
// one, is sent by its own publisher, and then passes the lane on:
//
//	state        how it goes on
//	-----------  -------------------------------------------------------------------------
//	no lane      direct: the publisher makes the lane, and sends its message
//	direct       no lane, or flush in a new goroutine if messages wait or connections are doubted
//	flush        one batch after the other; no lane when none waits any more
type lane struct{ waiting []*sending }

// A sending is a message that waits, or is sent with others.
type sending struct {
	cmd     Once
	payload *Payload
	limit   time.Duration // how long Redis may take to answer
	done    chan struct{} // closed when cmd is answered, or has failed
}

func newSending(m *Message, data []byte, limit time.Duration) *sending {
	s := &sending{limit: limit, done: make(chan struct{})}
	s.cmd, s.payload = command(context.Background(), m, data)
	return s
}

// A batch has so many messages, and bytes of data, at most: Redis does nothing else
// meanwhile, and all of them must be sent and answered within the time limit of one.
const maxBatch, maxBatchBytes = 256, 256 << 10

// command returns the command for a message, and its payload.
func command(ctx context.Context, m *Message, data []byte) (Once, *Payload) {
	payload := NewPayload(data)
	cmd := redis.NewCmd(ctx, append(slices.Clip(m.Args), payload)...)
	cmd.SetFirstKeyPos(m.Key)
	return Once{cmd}, payload
}

// attempt sends a message once, and waits until end for its turn to be sent. limit is how
// long Redis may take to answer then. With an error it reports whether Redis may have the
// message.
func (p *Publisher) attempt(ctx context.Context, client redis.UniversalClient, end time.Time, limit time.Duration, m *Message) (answer any, sent bool, err error) {
	node := nodeOf(client, m)
	p.mu.Lock()
	l := p.lanes[node]
	if l != nil {
		s := l.add(m, limit)
		p.mu.Unlock()
		return p.wait(ctx, l, s, end)
	}
	if p.lanes == nil {
		p.lanes = map[*redis.Client]*lane{}
	}
	l = &lane{}
	p.lanes[node] = l
	p.mu.Unlock()
	began := time.Now()
	defer func() { p.release(client, node, l, began, limit, err) }() // also if a hook of the client panics
	return direct(ctx, client, earlier(end, began.Add(limit)), m)
}

// nodeOf returns the node of a Cluster that has the key of a message, or nil. If go-redis
// doesn't know yet it isn't asked: it would ask Redis.
func nodeOf(client redis.UniversalClient, m *Message) *redis.Client {
	cluster, ok := client.(interface {
		MasterForKey(context.Context, string) (*redis.Client, error)
	})
	if !ok {
		return nil
	}
	key, _ := m.Args[m.Key].(string)
	node, _ := cluster.MasterForKey(Ended, key)
	return node
}

// direct sends a message by itself.
func direct(ctx context.Context, client redis.UniversalClient, end time.Time, m *Message) (answer any, sent bool, err error) {
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	cmd, payload := command(ctx, m, m.Data)
	err = client.Process(ctx, cmd)
	return cmd.Val(), payload.Sent(), err
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// release passes the lane on when a message has been sent, or has failed. The publisher
// doesn't wait until connections that are doubted are out of the way, but the messages behind
// it do.
func (p *Publisher) release(client redis.UniversalClient, node *redis.Client, l *lane, began time.Time, limit time.Duration, err error) {
	if err != nil {
		go func() { // ends when no messages wait
			p.Failed(context.Background(), client, began, limit)
			p.flush(client, node, l, p.take(node, l))
		}()
		return
	}
	if batch := p.take(node, l); batch != nil {
		go p.flush(client, node, l, batch) // ends when no messages wait
	}
}

// flush sends one batch after the other.
func (p *Publisher) flush(client redis.UniversalClient, node *redis.Client, l *lane, batch []*sending) {
	for ; batch != nil; batch = p.take(node, l) {
		p.send(client, batch)
		runtime.Gosched() // those whose messages are sent may have others, for the next batch
	}
}

// send sends a batch by one pipeline.
func (p *Publisher) send(client redis.UniversalClient, batch []*sending) {
	began, limit := time.Now(), batch[0].limit
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	pipe := client.Pipeline()
	for _, s := range batch {
		_ = pipe.Process(ctx, s.cmd) // it only appends
	}
	_, err := pipe.Exec(ctx)
	failed := func(s *sending) bool { return s.cmd.Err() != nil }
	if err != nil {
		if !slices.ContainsFunc(batch, failed) { // a hook of the client has refused all of them
			for _, s := range batch {
				s.cmd.SetErr(err)
			}
		}
	}
	for _, s := range batch {
		close(s.done)
	}
	if err != nil {
		p.Failed(context.Background(), client, began, limit)
	}
}

// add makes a message wait. The data is copied: the publisher may leave while it is sent.
// Publisher.mu is held.
func (l *lane) add(m *Message, limit time.Duration) *sending {
	s := newSending(m, bytes.Clone(m.Data), limit)
	l.waiting = append(l.waiting, s)
	return s
}

// take returns the next batch. If no message waits it removes the lane, and returns nil.
func (p *Publisher) take(node *redis.Client, l *lane) []*sending {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(l.waiting) == 0 {
		delete(p.lanes, node)
		return nil
	}
	n, size := 1, len(l.waiting[0].payload.data)
	for ; n < min(len(l.waiting), maxBatch); n++ {
		if size += len(l.waiting[n].payload.data); size > maxBatchBytes {
			break
		}
	}
	batch := l.waiting[:n:n]
	if l.waiting = l.waiting[n:]; len(l.waiting) == 0 {
		l.waiting = nil
	}
	return batch
}

// wait waits until a message is sent and answered, for as long as its publisher does.
func (p *Publisher) wait(ctx context.Context, l *lane, s *sending, end time.Time) (answer any, sent bool, err error) {
	late := time.NewTimer(time.Until(end)) // cheaper than a context
	defer late.Stop()
	select {
	case <-s.done:
		return s.cmd.Val(), s.payload.Sent(), s.cmd.Err()
	case <-late.C:
		err = context.DeadlineExceeded
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, !p.remove(l, s), fmt.Errorf("it waited behind others: %w", err)
}

// remove takes a message out of those that wait. It returns false if it may be under way.
func (p *Publisher) remove(l *lane, s *sending) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(l.waiting, s)
	if i < 0 {
		return false
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	return true
}
