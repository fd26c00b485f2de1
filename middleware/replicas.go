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
)

// replicas is a gateway's part in what the gateways of a bus tell each other: the
// operator's decisions about backends, the last of which counts for each.
//
// A message always holds all decisions that its sender knows, so it doesn't
// matter which ones were lost. Who hears that another lacks something, or has
// something older, tells what it knows; so does everybody who is told nothing for
// a while. A new replica only has to say that it knows nothing.
type replicas struct {
	bus     bus.Bus
	topic   string
	id      string // of this replica
	pool    *balancer.Pool
	close   func(sessionNote) // closes the tunnels of a session here
	log     *slog.Logger
	changed chan struct{} // something about the pool has
	running atomic.Bool
	ran     atomic.Bool // at any time

	// Of the goroutine in run:
	known     map[string]*known // by backend
	clock     int64             // the latest stamp given or heard
	timer     *time.Timer       // for tell
	due       time.Time         // when it fires
	announced time.Time         // when all was told
	asking    bool              // to be told with nothing to tell, so that others answer
	failing   bool              // the last attempt to tell has failed
}

// known is the last decision about a backend.
type known struct {
	decision
	seen bool // since then the backend was in the pool
}

const (
	// announceEvery is how often the decisions are told, by one of the replicas.
	announceEvery = 10 * time.Second
	// gather is how long further decisions are waited for: who drains a whole pool
	// makes many.
	gather = 10 * time.Millisecond
	// answerWithin spreads the answers of replicas: most of them find that
	// another one was first.
	answerWithin = 100 * time.Millisecond
	// apartMax is how far replicas' clocks may be apart. Without a bound a single
	// message could be later than all that anybody decides from then on.
	apartMax = 24 * time.Hour
	// foreignMax is how many decisions about backends are kept that aren't in the
	// pool. The latest stay.
	foreignMax = 256
)

func newReplicas(o Options, pool *balancer.Pool, closeSession func(sessionNote), log *slog.Logger) *replicas {
	r := &replicas{
		bus: o.Bus, topic: o.BusTopic, id: rand.Text(), pool: pool, close: closeSession, log: log,
		changed: make(chan struct{}, 1), known: make(map[string]*known),
	}
	if r.topic == "" {
		r.topic = "limpet:gateway"
	}
	return r
}

// poolChanged has the pool looked through.
func (r *replicas) poolChanged() {
	select {
	case r.changed <- struct{}{}:
	default: // it will be already
	}
}

// run takes part until ctx ends.
func (r *replicas) run(ctx context.Context) error {
	if r.running.Swap(true) {
		return errors.New("limpet: Gateway.Run runs already: Gateway.Serve calls it too, and one of them is enough")
	}
	defer r.running.Store(false)
	r.ran.Store(true)
	r.timer = time.NewTimer(announceEvery)
	r.due = time.Time{}
	defer r.timer.Stop()
	complaint := ""
	for ctx.Err() == nil {
		if err := r.join(ctx); err != nil && ctx.Err() == nil {
			if why := err.Error(); why != complaint {
				r.log.Warn("replicas are not heard; trying again each second", "err", err)
				complaint = why
			}
			sleep(ctx, time.Second)
		}
	}
	return nil
}

// join takes part with one subscription.
func (r *replicas) join(ctx context.Context) error {
	sub, err := r.bus.Subscribe(ctx)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := sub.Add(ctx, r.topic); err != nil && ctx.Err() == nil {
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
			if r.collect(); time.Until(r.due) <= gather { // nobody has heard of a decision
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
				r.announce(last)
				cancel()
			}
			return nil
		case <-r.changed:
			r.collect()
		case <-r.timer.C:
			r.announce(ctx)
		case a := <-arrivals:
			var gap *bus.Gap
			switch {
			case errors.As(a.error, &gap):
				r.ask()
			case a.error != nil:
				return a.error
			default:
				r.receive(a.Data)
			}
		}
	}
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

// ask has all told, so that who knows more says so.
func (r *replicas) ask() {
	r.asking = true
	r.announceWithin(0)
}

// collect compares the pool with what is known: what differs was decided here.
func (r *replicas) collect() {
	for b := range r.pool.All() {
		id := b.ID()
		wish, k := b.Wish(), r.known[id]
		fresh := wish.Since.IsZero() // nobody has wished anything
		switch {
		case k == nil && fresh, k != nil && k.seen && k.wish().Equal(wish):
		case k != nil && !k.seen && fresh: // it was decided elsewhere before this pool had the backend
			k.seen = true
			r.apply(k.decision)
		default:
			if fresh { // it was removed and is back: a new start, for all
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

// apply does here what was decided elsewhere.
func (r *replicas) apply(d decision) {
	if r.pool.SetWish(d.Backend, d.wish()) == nil { // else it was removed meanwhile
		r.log.Info("another replica's decision", "backend", d.Backend, "wish", d.Wish, "by", d.By)
	}
}

// receive takes a message of another replica.
func (r *replicas) receive(data []byte) {
	n, err := parseNote(data)
	switch {
	case err != nil:
		r.log.Debug("a message on the replicas' topic is none of theirs", "err", err)
		return
	case n.From == r.id:
		return
	case n.Close != nil:
		r.close(*n.Close)
		return
	}
	r.collect() // what was decided here is older than what comes now
	heard := make(map[string]decision, len(n.Decisions))
	for _, d := range n.Decisions {
		heard[d.Backend] = d
		if ahead := time.Until(time.UnixMicro(d.At)); ahead > apartMax {
			r.log.Warn("another replica's decision is refused: its clock is wrong, or this one's", "backend", d.Backend, "wish", d.Wish, "by", d.By, "ahead", ahead)
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
	covered := true
	for id, k := range r.known {
		if d, ok := heard[id]; !ok || k.after(d) {
			covered = false
		}
	}
	switch {
	case !covered:
		// Two whose pools are too different to be content with each other would
		// never end: they have a pause at least.
		r.announceWithin(max(mrand.N(answerWithin), time.Until(r.announced.Add(time.Second))))
	case !r.asking:
		r.announceLater()
	}
}

// forget keeps what is known within its bound.
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

// announce tells all that is known.
func (r *replicas) announce(ctx context.Context) {
	r.collect()
	r.announceLater()
	if len(r.known) == 0 && !r.asking {
		return
	}
	n := note{From: r.id}
	for _, k := range r.known {
		n.Decisions = append(n.Decisions, k.decision)
	}
	err := r.publish(ctx, n)
	if err != nil {
		if !r.failing && ctx.Err() == nil {
			r.log.Warn("replicas can't be told of decisions until the bus is back", "err", err)
		}
		r.announceWithin(time.Second)
	}
	r.announced = time.Now()
	r.asking, r.failing = r.asking && err != nil, err != nil
}

func (r *replicas) publish(ctx context.Context, n note) error {
	if err := r.bus.Publish(ctx, r.topic, n.encode()); err != nil {
		return fmt.Errorf("limpet: publish on %s: %w", r.topic, err)
	}
	return nil
}
