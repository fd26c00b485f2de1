package middleware

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/upgrade"
)

const (
	touchWithin = time.Second           // how long a touch may take
	touchPause  = 10 * time.Millisecond // between two batches of touches at least
)

// A keeper touches the pins of the clients that have tunnels, so that no store forgets them
// for lack of use. Only pins in an [affinity.Toucher] take part. It runs by timers, none of
// which is set while there is no such tunnel.
type keeper struct {
	mu     sync.Mutex
	rounds map[time.Duration]*touchRound // by TouchEvery of the stores
	failed func(error)
}

// A keptPin is the pin of one tunnel in one store.
type keptPin struct {
	store        affinity.Toucher
	key, backend string
	round        *touchRound

	// Guarded by the lock of round:
	prev, next *keptPin // nil: the tunnel has ended
	touched    time.Time
}

// keep has pins touched until the tunnel has ended. They were used just now, unless the tunnel was
// adopted from another process: that one may have been about to touch them, so that their first
// turn comes soon. Pins that don't expire for lack of use cost nothing.
func (k *keeper) keep(pins []*keptPin, t *upgrade.Tunnel, adopted bool) {
	for _, p := range pins {
		every := p.store.TouchEvery()
		if every <= 0 {
			continue
		}
		p.key = strings.Clone(p.key) // it may be a part of a long string
		p.round = k.round(every)
		p.round.add(p, adopted)
		t.OnClosed(func(upgrade.Summary) { p.end() })
	}
}

func (k *keeper) round(every time.Duration) *touchRound {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.rounds[every]
	if r == nil {
		r = &touchRound{every: every, failed: k.failed}
		r.ring.prev, r.ring.next = &r.ring, &r.ring
		if k.rounds == nil {
			k.rounds = make(map[time.Duration]*touchRound)
		}
		k.rounds[every] = r
	}
	return r
}

// A touchRound has the pins that are to be touched equally often. A pin is due when it was
// touched that long ago. Those that are due at the same time, as after many clients have
// connected at once, are spread over as much time again. So each pin is touched at the
// latest after twice that time, which is half of its idle lifetime.
type touchRound struct {
	every  time.Duration
	failed func(error)

	mu    sync.Mutex
	ring  keptPin // joins the ends of a list, in which the pin that was touched longest ago is next
	count int
	timer *time.Timer // calls step
	runs  bool        // the timer is set, or step runs
}

// The first turn of a pin whose tunnel was adopted comes after an eighth of every. Its last touch
// may have been twice every ago, and if many are due together its turn may be put off for every:
// together that is less than four times every, after which the pin would expire.
const adoptedPart = 8

func (r *touchRound) add(p *keptPin, adopted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.append(p)
	in := r.every
	if adopted {
		in /= adoptedPart
		p.touched = p.touched.Add(in - r.every)
	}
	if !r.runs {
		r.runs = true
		r.schedule(in)
	}
}

// end takes p out of its round.
func (p *keptPin) end() {
	r := p.round
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(p)
	if r.count == 0 && r.timer.Stop() {
		r.runs = false // otherwise step sees to that
	}
}

// step touches the pins whose turn has come, and sets the timer for the next one. The touches
// are made one after another, so a store never has more than one of this round to answer.
// With many pins a turn lasts for less than touchPause, and step takes several.
func (r *touchRound) step() {
	r.mu.Lock()
	defer r.mu.Unlock()
	began := time.Now()
	pace := max(r.every/time.Duration(max(r.count, 1)), touchPause)
	batch := min(1+time.Duration(r.count)*touchPause/r.every, time.Duration(r.count))
	for ; batch > 0 && r.count > 0 && time.Since(r.ring.next.touched) >= r.every; batch-- {
		p := r.ring.next
		r.remove(p)
		r.append(p)
		r.mu.Unlock()
		r.touch(p)
		r.mu.Lock()
	}
	if r.runs = r.count > 0; r.runs {
		r.schedule(max(r.every-time.Since(r.ring.next.touched), pace-time.Since(began)))
	}
}

func (r *touchRound) touch(p *keptPin) {
	ctx, cancel := context.WithTimeout(context.Background(), touchWithin)
	defer cancel()
	if err := p.store.Touch(ctx, p.key, p.backend); err != nil {
		r.failed(err)
	}
}

// schedule has step called after that time. r.mu is held.
func (r *touchRound) schedule(in time.Duration) {
	if r.timer == nil {
		r.timer = time.AfterFunc(in, r.step)
	} else {
		r.timer.Reset(in)
	}
}

// append makes p the last pin, which was used just now. r.mu is held.
func (r *touchRound) append(p *keptPin) {
	p.touched = time.Now()
	p.prev, p.next = r.ring.prev, &r.ring
	p.prev.next, p.next.prev = p, p
	r.count++
}

// remove takes p out of the list. r.mu is held.
func (r *touchRound) remove(p *keptPin) {
	p.prev.next, p.next.prev = p.next, p.prev
	p.prev, p.next = nil, nil
	r.count--
}
