package redisclient

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Publisher sends messages to Redis. A message is sent at once if no other one is under
// way. Those that come meanwhile are sent by one pipeline when it is done: with many
// publishers that takes a fraction of the system calls, here and in Redis. The price is that
// a message may wait for one that is under way. In a Cluster messages wait only for those to
// the same node.
//
// The zero value is ready for use. It has a goroutine only while messages wait. All methods
// may be called concurrently.
type Publisher struct {
	Sweeper

	mu    sync.Mutex
	lanes map[*redis.Client]*lane // where a message is under way, by node of a Cluster; nil is any node
}

// A Message is a command that publishes, and how it is sent.
type Message struct {
	Args   []any  // of the command, without the last one
	Data   []byte // the last argument
	Key    int8   // the index in Args of the string by which a Cluster finds the node
	Repeat bool   // it may be sent again if Redis hasn't answered
}

// retryPause is the pause before another attempt.
const retryPause = 25 * time.Millisecond

// Do sends a message, and returns the answer of Redis. It doesn't keep the message.
//
// It makes attempts until timeout is over or ctx ends. An error ends it before, unless the
// message surely wasn't sent or may be repeated, or Redis says that it can't do anything for
// now. Each attempt may take a third of timeout: one on a dead connection must not take all
// the time that there is. After an error the message may have been sent all the same.
func (p *Publisher) Do(ctx context.Context, client redis.UniversalClient, timeout time.Duration, m *Message) (any, error) {
	for end := time.Now().Add(timeout); ; {
		answer, sent, err := p.attempt(ctx, client, end, timeout/3, m)
		if err == nil {
			return answer, nil
		}
		if !m.again(client, err, sent) {
			return nil, err
		}
		select {
		case <-time.After(min(retryPause, time.Until(end))):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		if !time.Now().Before(end) {
			return nil, fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
		}
	}
}

// DoAll sends messages in their order, by pipelines, as Do sends one. It calls failed with the
// error of each that Redis may not have, and returns when all of them are decided.
func (p *Publisher) DoAll(client redis.UniversalClient, timeout time.Duration, all []*Message, failed func(error)) {
	for len(all) > 0 {
		n, size := 1, len(all[0].Data)
		for ; n < min(len(all), maxBatch); n++ {
			if size += len(all[n].Data); size > maxBatchBytes {
				break
			}
		}
		p.doBatch(client, timeout, all[:n], failed)
		all = all[n:]
	}
}

// doBatch sends messages by one pipeline, and those that have to be sent again by another one.
func (p *Publisher) doBatch(client redis.UniversalClient, timeout time.Duration, ms []*Message, failed func(error)) {
	for end := time.Now().Add(timeout); ; {
		batch := make([]*sending, len(ms))
		for i, m := range ms {
			batch[i] = newSending(m, m.Data, timeout/3)
		}
		p.send(client, batch)
		var again []*Message
		late := !time.Now().Add(retryPause).Before(end)
		for i, s := range batch {
			switch err := s.cmd.Err(); {
			case err == nil:
			case late || !ms[i].again(client, err, s.payload.Sent()):
				failed(err)
			default:
				again = append(again, ms[i])
			}
		}
		if len(again) == 0 {
			return
		}
		ms = again
		time.Sleep(retryPause)
	}
}

// again reports whether a message is to be sent again after an error. sent says that Redis may
// have it.
func (m *Message) again(client redis.UniversalClient, err error, sent bool) bool {
	return isPassing(err) || !isFinal(client, err) && (!sent || m.Repeat)
}

// isPassing reports whether Redis has refused a command, or a connection, because of a state
// that passes.
func isPassing(err error) bool {
	return redis.IsLoadingError(err) || redis.IsReadOnlyError(err) ||
		redis.IsMasterDownError(err) || redis.IsClusterDownError(err) || redis.IsTryAgainError(err) ||
		redis.IsMaxClientsError(err)
}

// isFinal reports whether an error is an answer of Redis, such as that to a wrong password,
// or says that the client is closed. A client of a Cluster closes those of nodes that leave.
func isFinal(client redis.UniversalClient, err error) bool {
	var answer redis.Error
	_, single := client.(*redis.Client)
	return errors.As(err, &answer) || single && errors.Is(err, redis.ErrClosed)
}
