package middleware

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/pause"
)

// replicas exchanges the operator's decisions about backends, and about the shares of groups,
// with the other gateways of a bus. For each backend, and for the shares, the latest decision
// counts.
//
// An announcement has all decisions that its sender knows, so that it doesn't matter if
// messages are lost. A replica announces what it knows:
//
//	when                                              how soon
//	it starts, or may have missed messages            at once
//	another one starts                                within answerWithin, at random
//	its operator has decided something                after gather, together with more
//	another's announcement lacks something, or has    within answerWithin, at random, unless
//	something that is older                           another replica is first
//	nobody has announced everything for a while       announceEvery, and up to half more
//	the last announcement couldn't be published       after a second
//
// A replica that starts announces that it knows nothing, and isn't ready before it has an
// answer, for joinWithin at most: it would send new clients to a backend that is drained.
// The goroutine of run owns the fields below; others only signal it through changed, and
// publish messages of their own.
type replicas struct {
	bus     bus.Bus
	topic   string
	id      string // of this replica
	pool    *balancer.Pool
	gateway *Gateway
	log     *slog.Logger
	changed chan struct{} // of one element: the pool has changed
	views   views
	running atomic.Bool
	ran     atomic.Bool  // at any time
	joins   atomic.Int64 // until when this replica waits for the decisions of others, in Unix nanoseconds

	sharesSet atomic.Bool // somebody has set the pool's shares since the gateway was made

	// Only the goroutine of run uses these:
	known     map[string]*known // by backend
	shares    *sharesDecision   // the last decision about the shares of groups, nil if there was none
	clock     int64             // the latest At of all decisions
	timer     *time.Timer       // for announce
	due       time.Time         // when it fires
	nextView  *time.Timer       // for showView
	viewed    time.Time         // when the last view was published
	announced time.Time         // when all was told
	asking    bool              // announce even if nothing is known, so that others answer
	failing   bool              // the last announcement could not be published
}

// known is the last decision about a backend.
type known struct {
	decision
	seen bool // the backend was in the pool when, or after, the decision came
}

const (
	// announceEvery is about how often one of the replicas announces all decisions.
	announceEvery = 10 * time.Second
	// gather is how long a replica waits for further decisions. An operator who drains
	// a whole pool makes many.
	gather = 10 * time.Millisecond
	// answerWithin is the time over which replicas spread their answers, so that most
	// of them find that another one has answered.
	answerWithin = 100 * time.Millisecond
	// joinWithin is how long a replica that starts waits for the others' decisions before it
	// takes new clients: for an answer, and a bus that is slow. It may be the only one.
	joinWithin = 500 * time.Millisecond
	// apartMax is how far replicas' clocks may be apart. Without a bound, a single
	// message from the far future would win against all decisions from then on.
	apartMax = 24 * time.Hour
	// foreignMax is how many decisions are kept about backends that aren't in the pool.
	// The latest are kept.
	foreignMax = 256
)

func newReplicas(o Options, g *Gateway) *replicas {
	r := &replicas{
		bus: o.Bus, topic: o.BusTopic, id: rand.Text(), gateway: g, pool: g.router.pool, log: g.router.log,
		changed: make(chan struct{}, 1), known: make(map[string]*known),
	}
	if r.topic == "" {
		r.topic = "limpet:gateway"
	}
	r.joinLater()
	return r
}

// poolChanged makes the goroutine of run compare the pool with what it knows. It never
// blocks.
func (r *replicas) poolChanged() {
	select {
	case r.changed <- struct{}{}:
	default: // it will do so anyway
	}
}

// run exchanges decisions until ctx ends, and subscribes again when the bus fails.
func (r *replicas) run(ctx context.Context) error {
	if r.running.Swap(true) {
		return errors.New("limpet: Gateway.Run runs already: Gateway.Serve calls it too, and one of them is enough")
	}
	defer r.running.Store(false)
	if !r.ran.Swap(true) {
		r.joinLater()
	}
	r.timer = time.NewTimer(announceEvery)
	r.due = time.Time{}
	defer r.timer.Stop()
	r.nextView = time.NewTimer(0)
	defer r.nextView.Stop()
	complaint := ""
	for ctx.Err() == nil {
		if err := r.join(ctx); err != nil && ctx.Err() == nil {
			if why := err.Error(); why != complaint {
				r.log.Warn("replicas are not heard; trying again each second", "err", err)
				complaint = why
			}
			pause.For(ctx, time.Second)
		}
	}
	return nil
}

// join exchanges decisions over one subscription, until ctx ends or the subscription
// fails.
func (r *replicas) join(ctx context.Context) error {
	sub, err := r.bus.Subscribe(ctx)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := sub.Add(ctx, r.topic, r.viewTopic()); err != nil && ctx.Err() == nil {
		r.log.Warn("replicas are not heard until the bus is back", "err", err)
	}

	type arrival struct {
		bus.Message
		error
	}
	arrivals := make(chan arrival)
	receiving, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { // ends with stop
		defer close(ended)
		for receiving.Err() == nil {
			m, err := sub.Next(receiving)
			select {
			case arrivals <- arrival{m, err}:
			case <-receiving.Done():
			}
		}
	}()
	defer func() {
		stop()
		<-ended
	}()

	r.ask()
	for {
		select {
		case <-ctx.Done():
			if r.collect(); time.Until(r.due) <= gather { // a decision was not announced yet
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
				r.announce(last)
				cancel()
			}
			return nil
		case <-r.changed:
			r.collect()
			r.showViewSoon()
		case <-r.timer.C:
			r.announce(ctx)
		case <-r.nextView.C:
			r.showView(ctx)
		case a := <-arrivals:
			var gap *bus.Gap
			switch {
			case errors.As(a.error, &gap):
				r.ask()
			case a.error != nil:
				return a.error
			case a.Topic == r.viewTopic():
				r.receiveView(a.Data)
			default:
				r.receive(a.Data)
			}
		}
	}
}

// joinLater begins the time within which this replica is joining. That is when the gateway is
// made, as a probe may come before Run is called, and once more when Run is.
func (r *replicas) joinLater() { r.joins.Store(time.Now().Add(joinWithin).UnixNano()) }

// joining reports whether this replica has started a moment ago, and others may not have told
// it their decisions yet.
func (r *replicas) joining() bool {
	until := r.joins.Load()
	return until != 0 && time.Now().UnixNano() < until
}

// announceWithin schedules an announcement for d from now, unless one is due earlier.
func (r *replicas) announceWithin(d time.Duration) {
	if due := time.Now().Add(d); due.Before(r.due) || r.due.IsZero() {
		r.due = due
		r.timer.Reset(d)
	}
}

// announceLater schedules the next regular announcement.
func (r *replicas) announceLater() {
	r.due = time.Time{}
	r.announceWithin(announceEvery + mrand.N(announceEvery/2))
}

// ask announces everything at once, so that replicas that know more answer.
func (r *replicas) ask() {
	r.asking = true
	r.announceWithin(0)
}

// collect compares the pool with what is known. A difference is a decision that was made
// on this replica.
func (r *replicas) collect() {
	r.collectShares()
	for b := range r.pool.All() {
		id := b.ID()
		wish, k := b.Wish(), r.known[id]
		fresh := wish.Since.IsZero() // no operator has decided anything
		switch {
		case k == nil && fresh, k != nil && k.seen && k.wish().Equal(wish):
		case k != nil && !k.seen && !wish.Since.After(k.Since):
			// It was decided elsewhere while this pool didn't have the backend, which
			// has no wish yet, or the one with which it left the pool and came back
			// from its source.
			k.seen = true
			r.apply(k.decision)
		default:
			if fresh { // the backend was removed and added again: it serves, on all replicas
				r.pool.SetWish(id, wish)
				if wish = b.Wish(); wish.Since.IsZero() {
					continue // it is gone again
				}
			}
			r.clock = max(r.clock+1, time.Now().UnixMicro())
			r.known[id] = &known{decide(id, wish, r.clock, r.id), true}
			r.announceWithin(gather)
		}
	}
}

// apply carries out a decision of another replica.
func (r *replicas) apply(d decision) {
	if r.pool.SetWish(d.Backend, d.wish()) == nil { // else the backend was removed meanwhile
		r.log.Info("another replica's decision", "backend", d.Backend, "wish", d.Wish, "by", d.By)
	}
}

// receive handles a message from the bus.
func (r *replicas) receive(data []byte) {
	n, err := parseNote(data)
	switch {
	case err != nil:
		r.log.Debug("a message on the replicas' topic is none of theirs", "err", err)
		return
	case n.From == r.id:
		return
	case n.Close != nil:
		r.gateway.closeSession(*n.Close)
		return
	case n.Move != nil:
		r.gateway.movePin(*n.Move)
		return
	case n.Version == movesVersion:
		r.gateway.movePins(n.Moves)
		return
	}
	if len(n.Decisions) == 0 && n.Shares == nil {
		// It asks, since it has just started. It can't take new clients where it should
		// before it knows.
		if len(r.known) > 0 || r.shares != nil {
			r.announceWithin(mrand.N(answerWithin))
		}
		return
	}
	defer r.joins.Store(0)
	r.collect() // first, so that decisions of this replica get an earlier time than what comes
	heard := make(map[string]decision, len(n.Decisions))
	for _, d := range n.Decisions {
		heard[d.Backend] = d
		if ahead := time.Until(time.UnixMicro(d.At)); ahead > apartMax {
			r.gateway.router.warn(context.Background(), "another replica's decision is refused: its clock is wrong, or this one's", "backend", d.Backend, "wish", d.Wish, "by", d.By, "ahead", ahead)
			continue
		}
		r.clock = max(r.clock, d.At)
		k := r.known[d.Backend]
		if k != nil && !d.after(k.decision) {
			continue
		}
		mine := r.pool.Get(d.Backend) != nil
		r.known[d.Backend] = &known{d, mine}
		if mine {
			r.apply(d)
		}
	}
	r.forget()
	covered := r.receiveShares(n.Shares)
	for id, k := range r.known {
		if d, ok := heard[id]; !ok || k.after(d) {
			covered = false
		}
	}
	switch {
	case !covered:
		// Two replicas that can't keep all of each other's decisions, as their pools
		// are too different, would answer each other for ever. The pause of a second
		// limits that.
		r.announceWithin(max(mrand.N(answerWithin), time.Until(r.announced.Add(time.Second))))
	case !r.asking:
		r.announceLater()
	}
}

// forget drops the oldest decisions about backends that aren't in the pool, beyond
// foreignMax.
func (r *replicas) forget() {
	var foreign []*known
	for id, k := range r.known {
		if r.pool.Get(id) == nil {
			foreign = append(foreign, k)
		}
	}
	if len(foreign) <= foreignMax {
		return
	}
	slices.SortFunc(foreign, func(a, b *known) int {
		if a.after(b.decision) {
			return -1
		}
		return 1
	})
	for _, k := range foreign[foreignMax:] {
		delete(r.known, k.Backend)
	}
}

// announce publishes all decisions that are known.
func (r *replicas) announce(ctx context.Context) {
	r.collect()
	r.announceLater()
	if len(r.known) == 0 && r.shares == nil && !r.asking {
		return
	}
	n := note{From: r.id, Shares: r.shares}
	for _, k := range r.known {
		n.Decisions = append(n.Decisions, k.decision)
	}
	err := r.publish(ctx, r.topic, n)
	if err != nil {
		if !r.failing && ctx.Err() == nil {
			r.log.Warn("replicas can't be told of decisions until the bus is back", "err", err)
		}
		r.announceWithin(time.Second)
	}
	r.announced = time.Now()
	r.asking, r.failing = r.asking && err != nil, err != nil
}

// publish sends n to all replicas. It may be called concurrently.
func (r *replicas) publish(ctx context.Context, topic string, n note) error {
	if err := r.bus.Publish(ctx, topic, n.encode()); err != nil {
		return fmt.Errorf("limpet: publish on %s: %w", topic, err)
	}
	return nil
}
