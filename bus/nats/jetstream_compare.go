package nats

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"
)

// A past is what a place finds when it looks back at the last message that has arrived.
type past int

const (
	whole   past = iota // it is there, and so is everything behind it
	trimmed             // it is gone, and what was behind it may be, too
	anew                // the stream counts anew: it has another message of this number, or isn't there yet
)

// compare looks back at the last message. A stream trims the oldest messages, so that everything
// behind a message is there while that one is. It waits until the server answers. receiving is
// held, or nothing is received yet.
func (p *jetPlace) compare() past {
	for p.last > 0 {
		found, err := p.lookBack()
		if err == nil {
			return found
		}
		if !rest(p.ctx) {
			break
		}
	}
	return trimmed
}

func (p *jetPlace) lookBack() (past, error) {
	ctx, cancel := context.WithTimeout(p.ctx, p.sub.js.timeout()/3)
	defer cancel()
	stream, err := p.sub.js.open(ctx)
	if err != nil {
		return 0, err
	}
	m, err := stream.GetMsg(ctx, p.last)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		info, err := stream.Info(ctx)
		if err == nil && info.State.LastSeq < p.last {
			return anew, nil
		}
		return trimmed, err
	}
	if err != nil {
		return 0, err
	}
	if p.at.IsZero() { // SubscribeFrom has named its number only
		p.at = m.Time
	}
	if !m.Time.Equal(p.at) {
		return anew, nil
	}
	return whole, nil
}

// suspect looks, after a break, whether the stream counts as it did. If it counts anew, a
// consumer that was made again behind the last message waits for a number that may never come.
func (p *jetPlace) suspect() {
	if p.looking.Swap(true) {
		return
	}
	go func() { // ends when the server has answered, or with stop
		p.receiving.Lock()
		p.looking.Store(false)
		if p.consuming != nil && p.last > 0 && p.compare() == anew {
			p.renew()
		}
		p.receiving.Unlock()
	}()
}

// renew gives up the consumer, and begins again at the newest message, behind a Gap. receiving
// is held.
func (p *jetPlace) renew() {
	old := p.consuming
	p.life++
	p.consuming = nil // nobody else begins again meanwhile
	go p.restart(old) // ends when it has begun, or with stop
}

func (p *jetPlace) restart(old jetstream.ConsumeContext) {
	old.Stop()
	p.from, p.why = nil, errAnew
	for p.ctx.Err() == nil && p.start(p.ctx) != nil && rest(p.ctx) {
	}
}
