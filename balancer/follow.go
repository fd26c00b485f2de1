package balancer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Follow makes the pool have the backends that the source names, until ctx ends:
//
//	go pool.Follow(ctx, source)
//
// Several sources may be followed at once, and there may be other backends: Follow changes
// only those that it has added. What it does with them:
//
//	the source                             the backend
//	names one that is new                  is added
//	has another URL for it, or another     is replaced by one with the same ID, at once, and
//	group                                  its clients and the operator's wish go there
//	has another weight for it              has that as its configured weight
//	says that it is Draining               is drained within [Target.Within]
//	doesn't name it any more               is drained within [Target.Grace], and then removed:
//	                                       earlier when the checks find it dead and its Lost
//	                                       has closed, later if the operator drains it for
//	                                       longer
//	names it again                         serves again, unless the operator drains it
//	fails, names no backend at all, or     all stay as they are, which is logged once, as is
//	one that can't be                      that the source is well again
//	names one whose ID another backend     that one stays, which is logged once
//	of the pool has
//
// The operator's wish and the source's are kept apart ([Backend.Wish], [Backend.Wanted]),
// and a backend serves only if both let it. So what the operator has drained stays drained
// whatever the source says, even when the backend was gone meanwhile; only the operator
// takes that back. He can't make a backend serve that its source drains. A backend that the
// embedder removes stays away until the source has stopped naming it and names it again.
//
// Gateways with a Bus tell each other what the operator wishes, not what sources want: each
// of them follows the source by itself. They see a change at slightly different times,
// and a drain's turns count from there.
//
// Follow returns nil when ctx ends. The backends stay as they are then, and one that is
// drained stays in the pool, Down, after that. It returns an error at once if the source
// can't be followed, for a reason that its Validate tells.
func (p *Pool) Follow(ctx context.Context, source Source) error {
	if source == nil {
		return errors.New("balancer: no source to follow")
	}
	if v, ok := source.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return err
		}
	}
	f := &follower{pool: p, source: fmt.Sprintf("%T", source), followed: make(map[string]*followed), wishes: make(map[string]*Wish)}
	if s, ok := source.(fmt.Stringer); ok {
		f.source = s.String()
	}

	type answer struct {
		targets []Target
		err     error
	}
	watching, stop := context.WithCancel(ctx)
	answers, ended := make(chan answer), make(chan struct{})
	go func() { // ends with stop
		defer close(ended)
		source.Watch(watching, func(targets []Target, err error) {
			select {
			case answers <- answer{slices.Clone(targets), err}:
			case <-watching.Done():
			}
		})
	}()
	defer func() {
		stop()
		<-ended
	}()
	changed := make(chan struct{}, 1)
	defer p.OnChange(func(Change) {
		select {
		case changed <- struct{}{}:
		default: // the loop will look anyway
		}
	})()

	for {
		select {
		case a := <-answers:
			f.take(ctx, a.targets, a.err)
		case <-changed:
		case <-ended:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("balancer: %s has ended, and the backends stay as they are", f.source)
		}
		f.removeEnded()
	}
}

// A follower makes a pool follow a source. Only the goroutine of Follow uses it.
type follower struct {
	pool     *Pool
	source   string // in words
	followed map[string]*followed
	wishes   map[string]*Wish // the operator's, of backends that were removed since the source doesn't name them
	failing  string           // why answers are of no use, as it was logged last; "" if the last one was
	told     time.Time        // when failing was logged
}

const tellEvery = 10 * time.Second

// followed is a backend that the source names, or has named.
type followed struct {
	target  Target
	backend *Backend // nil if the pool's backend of this ID isn't the source's
	asked   *Wish    // of the backend
	gone    bool     // the source doesn't name it any more
}

// take makes the pool have these targets, if err is nil and they make sense. It stops where
// it is when ctx ends: each change makes a new snapshot of the pool, so that many thousands
// of targets take long.
func (f *follower) take(ctx context.Context, targets []Target, err error) {
	if err == nil {
		err = checkTargets(targets)
	}
	var fresh map[string]*Backend
	if err == nil {
		fresh, err = f.build(targets)
	}
	if err != nil {
		f.fail(err)
		return
	}
	if f.failing != "" {
		f.failing = ""
		f.pool.log().Info("discovery works again", "source", f.source)
	}
	named := make(map[string]bool, len(targets))
	for _, t := range targets {
		if ctx.Err() != nil {
			return
		}
		named[t.ID] = true
		f.follow(t, fresh[t.ID])
	}
	for id, to := range f.followed {
		if ctx.Err() != nil {
			return
		}
		if !named[id] {
			f.leave(to)
		}
	}
}

// fail logs why an answer is of no use, once. Another reason is logged too, but not soon: the
// texts of some errors differ each time.
func (f *follower) fail(err error) {
	why := err.Error()
	if why == f.failing || f.failing != "" && time.Since(f.told) < tellEvery {
		return
	}
	f.failing, f.told = why, time.Now()
	f.pool.log().Warn("discovery fails, and the backends stay as they are", "source", f.source, "err", err)
}

// build returns backends for the targets that are new or have moved, before anything is
// changed: a target for which there can be no backend makes the whole answer useless.
func (f *follower) build(targets []Target) (map[string]*Backend, error) {
	fresh := make(map[string]*Backend)
	for _, t := range targets {
		if err := validWeight(t.ID, t.Weight); err != nil {
			return nil, err
		}
		if to := f.followed[t.ID]; to != nil && to.backend != nil && to.target.samePlace(t) {
			continue
		}
		b, err := t.backend()
		if err != nil {
			return nil, err
		}
		fresh[t.ID] = b
	}
	return fresh, nil
}

// samePlace reports whether one backend can be both targets.
func (t Target) samePlace(other Target) bool { return t.URL == other.URL && t.Group == other.Group }

// follow makes the pool have the target. b is a new backend for it, nil if it stands where
// it stood.
func (f *follower) follow(t Target, b *Backend) {
	to := f.followed[t.ID]
	if to == nil || to.backend == nil {
		f.enter(t, b)
		return
	}
	asked := t.asked(to.asked)
	to.target, to.gone = t, false
	switch {
	case !f.has(to): // the embedder has removed it, or has put another one in its place
		return
	case b != nil:
		if f.pool.replace(to.backend, b, asked) != nil {
			return // it was removed just now
		}
		to.backend = b
	default:
		f.pool.ask(to.backend, t.Weight, asked)
	}
	to.asked = asked
}

// enter adds the backend b for the target t.
func (f *follower) enter(t Target, b *Backend) {
	to := &followed{target: t, asked: t.asked(nil)}
	if err := f.pool.enter(b, f.wishes[t.ID], to.asked); err == nil {
		to.backend = b
		delete(f.wishes, t.ID)
	} else if f.followed[t.ID] == nil {
		f.pool.log().Warn("discovery names a backend whose ID another one in the pool has, which stays", "source", f.source, "backend", t.ID, "url", t.URL)
	}
	f.followed[t.ID] = to
}

// has reports whether the pool has the backend that was added for the target.
func (f *follower) has(to *followed) bool {
	return to.backend != nil && f.pool.Get(to.target.ID) == to.backend
}

// leave drains a backend that the source doesn't name any more.
func (f *follower) leave(to *followed) {
	if !f.has(to) {
		delete(f.followed, to.target.ID)
		return
	}
	if to.gone {
		return
	}
	to.gone = true
	to.asked = to.target.askedGone(to.asked)
	f.pool.ask(to.backend, to.target.Weight, to.asked)
}

// removeEnded removes the backends that the source doesn't name any more and that keep
// nobody: they are off, at the end of their drain, or dead. A dead one whose Lost the half
// rule keeps open stays, since it may well be this machine's network that has failed, and
// its name server with it.
func (f *follower) removeEnded() {
	for id, to := range f.followed {
		if !to.gone || f.has(to) && (to.backend.State() != Down || !to.backend.lost()) {
			continue
		}
		delete(f.followed, id)
		if !f.has(to) {
			continue
		}
		if w := to.backend.wish.Load(); w != nil && len(f.wishes) < maxTargets {
			f.wishes[id] = w
		}
		_ = f.pool.Remove(id) // it fails if the embedder was faster
	}
}
