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

// errAnew is the reason of a Gap where the stream has begun to count anew.
var errAnew = errors.New("the stream was made again, or has lost its end")

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
	confirm   func()        // closes it, once
	why       error         // of the Gap that is due when they do, or nil; start and renew alone use it
	doubt     atomic.Bool   // something may have been trimmed since the last message
	looking   atomic.Bool   // a goroutine is about to look whether the stream counts as it did

	receiving sync.Mutex               // held while receive deals with a message, however long that waits
	last      uint64                   // the number of the last message that has arrived, 0 for none
	at        time.Time                // when the stream got it, as far as that is known
	life      int                      // changes when the place begins again: what still comes of its consumer before is ignored
	consuming jetstream.ConsumeContext // nil while the place begins
}

func newJetPlace(s *jetSubscription, topic string) *jetPlace {
	p := &jetPlace{sub: s, topic: topic, confirmed: make(chan struct{})}
	p.confirm = sync.OnceFunc(func() { close(p.confirmed) })
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
	p.why = errLate
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
	if p.why == nil && p.from != nil && p.last > 0 {
		switch p.compare() {
		case trimmed:
			p.gap(errTrimmed)
		case anew:
			p.from, p.why = nil, errAnew
			return p.start(ctx)
		}
	}
	if p.why != nil {
		p.gap(p.why)
	}
	p.receiving.Lock()
	defer p.receiving.Unlock()
	p.life++
	life, first := p.life, consumer.CachedInfo().Name
	consuming, err := consumer.Consume(func(m jetstream.Msg) { p.receive(m, consumer, life, first) },
		jetstream.PullMaxMessages(min(256, cmp.Or(j.Queue, 256))),
		jetstream.ConsumeErrHandler(func(jetstream.ConsumeContext, error) {
			p.doubt.Store(true) // the client goes on by itself
			p.suspect()
		}))
	if err != nil {
		return err
	}
	p.why, p.consuming = nil, consuming
	context.AfterFunc(p.ctx, consuming.Stop)
	p.confirm()
	return nil
}

// find sets last to the message behind which the place begins.
func (p *jetPlace) find(ctx context.Context, stream jetstream.Stream) error {
	var last uint64
	var at time.Time
	if p.from != nil {
		last = *p.from
	} else {
		newest, err := stream.GetLastMsgForSubject(ctx, p.subject())
		if err == nil {
			last, at = newest.Sequence, newest.Time
		} else if !errors.Is(err, jetstream.ErrMsgNotFound) {
			return err
		}
	}
	p.receiving.Lock()
	defer p.receiving.Unlock()
	p.last, p.at = last, at
	return nil
}

func (p *jetPlace) subject() string { return subject(p.sub.js.prefix(), p.topic) }

// receive puts a message into the queue, and waits until there is room. NATS' client calls it
// for one message after the other, and asks the server for more when they are taken. But when
// it makes the consumer again, a call for the old one may still wait.
func (p *jetPlace) receive(m jetstream.Msg, consumer jetstream.Consumer, life int, first string) {
	meta, err := m.Metadata()
	if err != nil {
		return
	}
	again := meta.Sequence.Consumer == 1 && meta.Consumer != first // it was made again
	p.receiving.Lock()
	defer p.receiving.Unlock()
	if again {
		p.giveWay(consumer, meta.Consumer, life)
	}
	if life != p.life || meta.Sequence.Stream <= p.last {
		return
	}
	if p.doubt.Swap(false) || again && p.last > 0 {
		switch p.compare() {
		case trimmed:
			p.gap(errTrimmed)
		case anew:
			p.renew()
			return
		}
	}
	if p.push(item{Message: bus.Message{Topic: p.topic, ID: strconv.FormatUint(meta.Sequence.Stream, 10), Data: m.Data()}}) {
		p.sub.js.delivered.Add(1)
		p.last, p.at = meta.Sequence.Stream, meta.Timestamp
	}
}

// giveWay waits until the message has arrived behind which a consumer was made again. NATS'
// client has given it to a call of receive, which may not have begun yet. receiving is held.
func (p *jetPlace) giveWay(consumer jetstream.Consumer, name string, life int) {
	info := consumer.CachedInfo()
	for info.Name == name && p.last+1 < info.Config.OptStartSeq && p.life == life && p.ctx.Err() == nil {
		p.receiving.Unlock()
		rest(p.ctx)
		p.receiving.Lock()
	}
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
