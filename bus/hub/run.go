package hub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/closecode"
)

// Run takes part in the bus until ctx ends. The caller starts it once, before
// members connect or while they do. When ctx ends, Run closes all members with 1012
// (Service Restart), waits for their connections, tells the other nodes that this
// one leaves, and returns nil.
//
// Members are refused as soon as ctx ends. A service that goes on serving for a while when
// it is told to end, as Gateway.Serve of Limpet's middleware does for the time LameDuck,
// gives Run a context that ends later: one whose cancel function was given to
// RegisterOnShutdown of the http.Server. Wait until Run has returned before the program
// ends, or members miss their close frame.
//
// Run returns an error if the bus refuses the subscription or ends it, as a bus may
// do when a subscriber is too slow. Members are closed in the same way, and the
// handler refuses clients from then on: the caller should log the error, and end
// the process if that helps.
func (h *Hub) Run(ctx context.Context) (err error) {
	if h.ran.Swap(true) {
		return errors.New("hub: Run was called before")
	}
	defer func() { h.shut(err) }()
	sub, err := h.bus.Subscribe(ctx)
	if ctx.Err() != nil {
		if err == nil {
			sub.Close()
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("hub: subscribe: %w", err)
	}
	defer sub.Close()

	receiving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var failed error
	received := make(chan struct{})
	go func() { // ends with stop
		defer close(received)
		failed = h.receive(receiving, sub)
	}()
	var announcing sync.WaitGroup
	defer func() {
		stop()
		<-received
		h.asked.answers.Wait()
		announcing.Wait()
	}()

	topics := []string{h.topic(everybody), h.topic(nodeKey + h.id)}
	if h.opts.Presence {
		topics = append(topics, h.topic(presenceKey))
		announcing.Go(func() { h.announce(receiving) }) // ends with stop
	}
	if err := sub.Add(ctx, topics...); err != nil && ctx.Err() == nil {
		h.opts.Logger.Warn("the bus can't be reached; the hub goes on by itself until it can", "err", err)
	}
	h.greet()
	tick := time.NewTicker(h.opts.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-h.interest.wake:
			h.tend(ctx, sub)
		case <-tick.C:
			h.heartbeat(ctx)
			h.nodes.forget(time.Now())
			// Nodes that were started together drift apart.
			tick.Reset(h.opts.Heartbeat - rand.N(h.opts.Heartbeat/10))
			h.tend(ctx, sub)
			h.announcer.poke() // what has failed is tried again
		case <-received:
			return fmt.Errorf("hub: %w", failed)
		case <-ctx.Done():
			h.shut(nil)
			_ = h.tell(context.WithoutCancel(ctx), everybody, kindBye)
			return nil
		}
	}
}

// shut refuses new members, closes those that there are, and waits for them. err is
// why, or nil if Run ends because its caller wants it to.
func (h *Hub) shut(err error) {
	h.mu.Lock()
	switch {
	case h.closed != nil:
	case err != nil:
		h.closed = fmt.Errorf("%w: %w", ErrClosed, err)
	default:
		h.closed = ErrClosed
	}
	h.mu.Unlock()
	h.interest.close()
	for m := range h.rooms.members(everybody) {
		m.Close(closecode.ServiceRestart, "service restart")
	}
	h.open.Wait()
}

// hasClosed returns nil until Run ends, and then why new members are refused.
func (h *Hub) hasClosed() error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.closed
}

// receive deals with the messages of the bus until ctx ends or the subscription
// does.
func (h *Hub) receive(ctx context.Context, sub bus.Subscription) error {
	for {
		msg, err := sub.Next(ctx)
		var gap *bus.Gap
		switch {
		case errors.As(err, &gap):
			h.gap(gap)
		case err != nil:
			return err
		default:
			h.handle(ctx, msg)
		}
	}
}

// gap says which members may have missed messages. From now on the bus delivers all,
// whatever it couldn't subscribe to before, unless it was the queue that was full.
func (h *Hub) gap(gap *bus.Gap) {
	h.gaps.Add(1)
	if gap.Err != nil && gap.Topics == nil {
		h.rooms.mendAll()
	}
	if h.missedNodes(gap) {
		h.nodes.rest()
		h.greetAgain()
	}
	who := Who{Local: true, All: gap.Topics == nil}
	for _, topic := range gap.Topics {
		key, _ := strings.CutPrefix(topic, h.opts.Prefix)
		if gap.Err != nil {
			h.rooms.mend(key)
		}
		who.All = who.All || key == everybody
		who.add(key)
	}
	h.missed(who.Rooms, gap.Topics == nil)
	if h.opts.Gap == nil {
		h.opts.Logger.Warn("messages between nodes are missing", "topics", someOf(gap.Topics), "err", gap)
		return
	}
	h.opts.Gap(who, gap)
}

// someOf returns what a log says of the topics of a gap: a gap may be one of thousands.
func someOf(topics []string) any {
	const few = 10
	switch {
	case topics == nil:
		return "all"
	case len(topics) > few:
		return append(slices.Clone(topics[:few]), fmt.Sprintf("and %d more", len(topics)-few))
	}
	return topics
}

// missed tells members that speak [Protocol] that messages to rooms are missing, or looks
// for the messages in the history.
func (h *Hub) missed(rooms []string, all bool) {
	missing := keys(rooms, nil)
	if all {
		missing = h.rooms.keys()
	}
	for _, key := range missing {
		if t := h.rooms.tail(key); t != nil {
			t.missed()
		}
		for m := range h.rooms.members(key) {
			if m.places != nil {
				m.missed(key)
			}
		}
	}
}

// missedNodes reports whether messages may be missing by which nodes know each other. A
// queue that was full isn't filled with more of them: the nodes that were missed are heard
// again within a few heartbeats.
func (h *Hub) missedNodes(gap *bus.Gap) bool {
	return gap.Err != nil && (gap.Topics == nil ||
		slices.Contains(gap.Topics, h.topic(everybody)) || slices.Contains(gap.Topics, h.topic(nodeKey+h.id)) ||
		slices.Contains(gap.Topics, h.topic(presenceKey)))
}

// handle deals with one message of the bus. ctx ends with Run.
func (h *Hub) handle(ctx context.Context, msg bus.Message) {
	e, err := parseEnvelope(msg.Data)
	if err != nil {
		h.misfit(msg.Topic, err)
		return
	}
	key, _ := strings.CutPrefix(msg.Topic, h.opts.Prefix)
	var at position
	if h.ordered(key) {
		at = parsePosition(msg.ID)
		if t := h.rooms.tail(key); t != nil {
			t.advance(at)
		}
	} else if e.node == h.id && e.kind != kindSilent {
		return // the members of this node had it when it was sent
	}
	switch e.kind {
	case kindAlive, kindHello, kindBye:
		h.heard(&e)
	case kindSilent:
		err = h.accused(&e)
	case kindCall:
		err = h.called(ctx, &e)
	case kindReply:
		h.nodes.trust(e.node)
		err = h.replied(&e)
	case kindQuestion:
		err = h.questioned(ctx, &e)
	case kindNews:
		err = h.learn(&e)
	case kindAskList:
		if h.opts.Presence {
			h.announcer.ask(e.node)
		}
	case kindAsk:
		// An answer takes as long as the bus does to publish it: messages must not
		// wait for that.
		h.asked.answers.Go(func() { h.answerCall(&e) })
	case kindAnswer:
		h.nodes.trust(e.node)
		err = h.asked.add(&e)
	default:
		if e.node != h.id && (e.kind == kindText || e.kind == kindBinary) {
			h.received.Add(1)
		}
		err = h.apply(&e, nil, key, at)
	}
	if err != nil {
		h.misfit(msg.Topic, err)
	}
}

// misfit logs the first message that isn't one of a hub, or is one of another
// version.
func (h *Hub) misfit(topic string, err error) {
	h.foreign.Do(func() {
		h.opts.Logger.Warn("a message between nodes makes no sense; further ones aren't logged", "topic", topic, "err", err)
	})
}
