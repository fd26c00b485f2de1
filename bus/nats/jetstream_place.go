package nats

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/limpet-go/limpet/bus"
)

// errLate is the reason of the Gap of a topic that couldn't be subscribed to in time.
var errLate = errors.New("NATS hasn't confirmed the subscription in time")

// errTrimmed is the reason of a Gap where the history was trimmed, or may have been.
var errTrimmed = errors.New("the history doesn't reach back to the last message that has arrived")

// idle is how long the server keeps a consumer that nobody reads from.
const idle = 30 * time.Second

// A jetPlace is the place of a subscription in a topic. It has an ordered consumer of NATS'
// client, which makes itself again behind the last message after a break.
type jetPlace struct {
	sub   *jetSubscription
	topic string
	from  *uint64 // the number of the message behind which it begins; nil is the newest
	ctx   context.Context
	stop  context.CancelFunc // ends it for good

	confirmed chan struct{} // closed when messages arrive
	late      bool          // a Gap is due when they do; start alone uses it
	doubt     atomic.Bool   // something may have been trimmed since the last message

	receiving sync.Mutex // held while receive deals with a message, however long that waits
	last      uint64     // the number of the last message that has arrived, 0 for none
	received  bool       // there was one
}

func newJetPlace(s *jetSubscription, topic string) *jetPlace {
	p := &jetPlace{sub: s, topic: topic, confirmed: make(chan struct{})}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

// isLive reports whether messages arrive.
func (p *jetPlace) isLive() bool {
	select {
	case <-p.confirmed:
		return true
	default:
		return false
	}
}

// await waits until messages arrive, or the topic was removed.
func (p *jetPlace) await(ctx context.Context) error {
	select {
	case <-p.confirmed:
		return nil
	case <-p.ctx.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// started goes on with what start couldn't do in time. A Gap follows then.
func (p *jetPlace) started(err error) {
	if err == nil {
		return
	}
	p.late = true
	go func() { // ends when it has started, or with stop
		for rest(p.ctx) && p.start(p.ctx) != nil {
		}
	}()
}

// start finds the place in the stream, and makes the consumer.
func (p *jetPlace) start(ctx context.Context) error {
	j := p.sub.js
	var consumer jetstream.Consumer
	err := j.try(ctx, func(ctx context.Context) error {
		stream, err := j.open(ctx)
		if err != nil {
			return err
		}
		if err := p.find(ctx, stream); err != nil {
			return err
		}
		consumer, err = j.api.OrderedConsumer(ctx, stream.CachedInfo().Config.Name, jetstream.OrderedConsumerConfig{
			FilterSubjects: []string{p.subject()}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
			OptStartSeq: p.last + 1, InactiveThreshold: idle,
		})
		return err
	})
	if err != nil {
		return err
	}
	if p.late {
		p.gap(errLate)
	} else if p.from != nil && p.last > 0 && !p.unbroken() {
		p.gap(errTrimmed)
	}
	consuming, err := consumer.Consume(p.receive,
		jetstream.PullMaxMessages(min(256, cmp.Or(j.Queue, 256))),
		jetstream.ConsumeErrHandler(func(jetstream.ConsumeContext, error) {
			p.doubt.Store(true) // the client goes on by itself
		}))
	if err != nil {
		return err
	}
	context.AfterFunc(p.ctx, consuming.Stop)
	close(p.confirmed)
	return nil
}

// find sets last to the message behind which the place begins.
func (p *jetPlace) find(ctx context.Context, stream jetstream.Stream) error {
	if p.from != nil {
		p.last = *p.from
		return nil
	}
	newest, err := stream.GetLastMsgForSubject(ctx, p.subject())
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		p.last = 0
		return nil
	case err != nil:
		return err
	}
	p.last = newest.Sequence
	return nil
}

func (p *jetPlace) subject() string { return subject(p.sub.js.prefix(), p.topic) }

// receive puts a message into the queue, and waits until there is room. NATS' client calls it
// for one message after the other, and asks the server for more when they are taken. But when
// it makes the consumer again, a call for the old one may still wait.
func (p *jetPlace) receive(m jetstream.Msg) {
	p.receiving.Lock()
	defer p.receiving.Unlock()
	meta, err := m.Metadata()
	if err != nil || meta.Sequence.Stream <= p.last {
		return
	}
	// A consumer that was made again counts from 1.
	if again := meta.Sequence.Consumer == 1 && p.received; p.doubt.Swap(false) || again {
		if !p.unbroken() {
			p.gap(errTrimmed)
		}
	}
	if p.push(item{Message: bus.Message{Topic: p.topic, ID: strconv.FormatUint(meta.Sequence.Stream, 10), Data: m.Data()}}) {
		p.sub.js.delivered.Add(1)
		p.last, p.received = meta.Sequence.Stream, true
	}
}

// unbroken reports whether nothing behind the last message was trimmed: a stream trims the
// oldest messages, so that everything is there while this one is.
func (p *jetPlace) unbroken() bool {
	for p.last > 0 {
		ctx, cancel := context.WithTimeout(p.ctx, p.sub.js.timeout())
		stream, err := p.sub.js.open(ctx)
		if err == nil {
			_, err = stream.GetMsg(ctx, p.last)
		}
		cancel()
		switch {
		case err == nil:
			return true
		case errors.Is(err, jetstream.ErrMsgNotFound) || !rest(p.ctx):
			return false
		}
	}
	return false
}

// gap puts a Gap into the queue.
func (p *jetPlace) gap(why error) {
	if p.push(item{gap: &bus.Gap{Lost: -1, Topics: []string{p.topic}, Err: why}}) {
		p.sub.js.gaps.Add(1)
	}
}

// push puts an item into the queue. It returns false if the topic was removed meanwhile.
func (p *jetPlace) push(it item) bool {
	if p.ctx.Err() != nil {
		return false
	}
	select {
	case p.sub.items <- it:
		return true
	default:
	}
	p.doubt.Store(true) // what is trimmed while this waits is missing
	select {
	case p.sub.items <- it:
		return true
	case <-p.ctx.Done():
		return false
	}
}
