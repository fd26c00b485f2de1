package balancer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Outliers says when a backend is ejected because of how it treats clients' requests. That is
// passive health: it finds what a health page doesn't show. The words and rules are those of
// Envoy's outlier detection.
//
// A request fails if the connection can't be made or breaks before the answer, if its status is
// one of Statuses, or if its answer begins later than Slow. A backend is an outlier after
// Consecutive failures in a row, or once Rate of its requests within a Window have failed.
//
// An ejected backend is sick: it keeps its clients and takes no new ones. It is never dead by
// passive means. The ejection ends by itself, as nothing else would show that the backend is
// well again: after Base, after twice that when it is ejected again, and so on up to Max. The
// number falls again by one for each Base that passes without an ejection. A good health
// check doesn't end an ejection, but one that finds the backend dead does: what comes back is
// judged anew.
//
// Only a backend that is Up is ejected, and only if no more than Share of the pool's
// backends that are wanted Up ([Backend.Wanted]) are ejected then, or this is the only one,
// and at least Panic of them are left that are Up. When fewer are left, since others have
// failed, all ejections end.
type Outliers struct {
	Consecutive int           // failures in a row; 0: 5
	Rate        float64       // share of failed requests, of 0 to 1; 0: 0.5
	Volume      int           // requests in a window from which on Rate counts; 0: 20
	Window      time.Duration // in which requests are counted, one after the other; 0: 10 s
	Statuses    []int         // that are failures, such as 502, 503 and 504; nil: none
	Slow        time.Duration // until an answer to a short request begins; 0: however long it takes

	Base  time.Duration // of a first ejection; 0: 30 s
	Max   time.Duration // of any ejection; 0: 5 min, or Base if that is longer
	Share float64       // of the backends that may be ejected at a time, of 0 to 1; 0: 0.2, but always one
	Panic float64       // of the backends that must be left Up, of 0 to 1; 0: 0.5
}

// ready returns a copy of o with the defaults filled in, nil for nil, or an error if o makes
// no sense.
func (o *Outliers) ready() (*Outliers, error) {
	if o == nil {
		return nil, nil
	}
	r := *o
	r.Statuses = slices.Clone(o.Statuses)
	r.Consecutive, r.Volume = cmp.Or(r.Consecutive, 5), cmp.Or(r.Volume, 20)
	r.Rate, r.Share, r.Panic = cmp.Or(r.Rate, 0.5), cmp.Or(r.Share, 0.2), cmp.Or(r.Panic, 0.5)
	r.Window, r.Base = cmp.Or(r.Window, 10*time.Second), cmp.Or(r.Base, 30*time.Second)
	r.Max = cmp.Or(r.Max, max(5*time.Minute, r.Base))
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("balancer: outliers: %w", err)
	}
	return &r, nil
}

func (o *Outliers) validate() error {
	if o.Consecutive < 0 || o.Volume < 0 || o.Volume > volumeMost {
		return fmt.Errorf("one of Consecutive %d and Volume %d is negative or above %d; 0 is the default", o.Consecutive, o.Volume, volumeMost)
	}
	for _, share := range []float64{o.Rate, o.Share, o.Panic} {
		if !(share > 0 && share <= 1) { // NaN too
			return fmt.Errorf("one of Rate %v, Share %v and Panic %v: want above 0 and 1 at most, or 0 for the default", o.Rate, o.Share, o.Panic)
		}
	}
	for _, d := range []time.Duration{o.Window, o.Base, o.Max} {
		if d < time.Millisecond {
			return fmt.Errorf("one of Window %v, Base %v and Max %v: a number without a unit counts nanoseconds; want 1 ms or more, or 0 for the default", o.Window, o.Base, o.Max)
		}
	}
	switch {
	case o.Max < o.Base:
		return fmt.Errorf("its Max %v is below Base %v", o.Max, o.Base)
	case o.Slow < 0 || unitless(o.Slow):
		return fmt.Errorf("its Slow %v: want 1 ms or more, or 0 for no limit", o.Slow)
	}
	for _, status := range o.Statuses {
		if status < 200 || status > 599 {
			return fmt.Errorf("the list Statuses has %d: want final statuses, of 200 to 599", status)
		}
	}
	return nil
}

// A Result is what has become of one attempt of a request at a backend.
type Result struct {
	Err    error         // there was no answer, and the backend or the way to it is at fault; nil: there was one
	Status int           // of the answer
	Begin  time.Duration // until the answer began; 0 for a request whose answer may take long, as a long poll's
}

// failure says why r counts as a failure, "" if it doesn't.
func (o *Outliers) failure(r Result) string {
	switch {
	case r.Err != nil:
		return r.Err.Error()
	case slices.Contains(o.Statuses, r.Status):
		return fmt.Sprintf("status %d", r.Status)
	case o.Slow > 0 && r.Begin > o.Slow:
		return fmt.Sprintf("an answer that began after %v", r.Begin.Round(time.Millisecond))
	}
	return ""
}

// Observes reports whether Options.Outliers is set, so that results are worth telling.
func (p *Pool) Observes() bool { return p.outliers != nil }

// Observe takes in what has become of an attempt at b, which is ejected if it is an outlier now:
// see [Outliers]. Gateways and Sticky call it for each attempt that has failed, unless the client
// or the gateway is at fault or b was lost, and for each answer. It does nothing without
// Options.Outliers, and nothing about an error that is the fault of this machine. For a
// success, it takes no lock and allocates nothing.
func (p *Pool) Observe(b *Backend, r Result) {
	o := p.outliers
	if o == nil || localFault(r.Err) || errors.Is(r.Err, ErrLost) {
		return
	}
	why := o.failure(r)
	total, failed := b.conduct.note(time.Now(), o.Window, why != "")
	if why == "" {
		return
	}
	row := b.conduct.row.Add(1)
	switch {
	case int(row) >= o.Consecutive:
		why = fmt.Sprintf("outlier: %d failures in a row, at last %s", row, why)
	case total >= o.Volume && float64(failed) >= o.Rate*float64(total):
		why = fmt.Sprintf("outlier: %d of %d requests failed, at last %s", failed, total, why)
	default:
		return
	}
	if b.State() == Up {
		p.eject(b, why)
	}
}

// conduct is how a backend has treated requests of late.
type conduct struct {
	row    atomic.Int64  // failures since the last success
	window atomic.Uint64 // the number of the window, the requests in it and those that failed
}

// volumeMost is the most requests that a window counts.
const volumeMost = 1<<20 - 1

// note counts a request and returns the numbers of the present window. A success ends the row
// of failures.
func (c *conduct) note(now time.Time, window time.Duration, failure bool) (total, failed int) {
	if !failure && c.row.Load() != 0 { // a Load costs less than a Store that changes nothing
		c.row.Store(0)
	}
	number := uint64(now.UnixNano()/int64(window)) << 40
	for {
		old := c.window.Load()
		next := old
		if old>>40 != number>>40 {
			next = number
		}
		if next>>20&volumeMost < volumeMost {
			next += 1 << 20
			if failure {
				next++
			}
		}
		if c.window.CompareAndSwap(old, next) {
			return int(next >> 20 & volumeMost), int(next & volumeMost)
		}
	}
}

// reset forgets what was counted.
func (c *conduct) reset() {
	c.row.Store(0)
	c.window.Store(0)
}

// An ejection is what keeps an outlier from new clients. The pool's mutex guards it.
type ejection struct {
	timer *time.Timer // ends it; nil while the backend isn't ejected
	why   string
	times int       // how often it was ejected of late
	ended time.Time // when it ended last
}

// eject ejects b unless a limit forbids that.
func (p *Pool) eject(b *Backend, why string) {
	var few []any // what is logged, without the mutex, if too few backends would be left
	defer func() {
		if few != nil {
			p.log().Debug("outlier isn't ejected, since too few backends would be left", few...)
		}
	}()
	p.mu.Lock()
	defer p.unlock()
	o, e := p.outliers, &b.ejection
	if p.Get(b.id) != b || b.State() != Up {
		return
	}
	b.conduct.reset()
	serving, up, ejected := p.strength()
	if ejected > 0 && float64(ejected+1) > o.Share*float64(serving) || float64(up-1) < o.Panic*float64(serving) {
		few = []any{"backend", b.id, "why", why, "up", up, "ejected", ejected}
		return
	}
	if !e.ended.IsZero() {
		e.times = max(0, e.times-int(time.Since(e.ended)/o.Base))
	}
	e.times++
	lasts := o.Max
	if int64(e.times) <= int64(o.Max/o.Base) {
		lasts = time.Duration(e.times) * o.Base
	}
	e.why = fmt.Sprintf("%s; ejected for %v", why, lasts)
	var timer *time.Timer
	timer = time.AfterFunc(lasts, func() {
		p.mu.Lock()
		defer p.unlock()
		if e.timer == timer {
			p.readmit(b, "ejection is over")
		}
	})
	e.timer = timer
	b.diagnose()
	p.settle(&Change{Backend: b, Why: e.why})
}

// readmit ends the ejection of b. The caller holds the mutex.
func (p *Pool) readmit(b *Backend, why string) {
	b.ejection.end()
	b.conduct.reset()
	b.diagnose()
	p.settle(&Change{Backend: b, Why: why})
}

// end ends the ejection, if there is one.
func (e *ejection) end() {
	if e.timer != nil {
		e.timer.Stop()
		e.timer, e.ended = nil, time.Now()
	}
}

// strength returns how many backends are wanted Up, by the operator and their sources, how many
// of these are Up, and how many are ejected. The caller holds the mutex.
func (p *Pool) strength() (serving, up, ejected int) {
	for _, b := range p.now.Load().all {
		if b.Wanted().State != Up {
			continue
		}
		serving++
		if b.State() == Up {
			up++
		}
		if b.ejection.timer != nil {
			ejected++
		}
	}
	return serving, up, ejected
}

// panics ends all ejections if too few backends are left that are Up. Settle calls it after
// each change.
func (p *Pool) panics() {
	if p.outliers == nil {
		return
	}
	serving, up, ejected := p.strength()
	if ejected == 0 || float64(up) >= p.outliers.Panic*float64(serving) {
		return
	}
	for _, b := range p.now.Load().all {
		if b.ejection.timer != nil {
			p.readmit(b, fmt.Sprintf("ejection is over, since only %d of %d backends are up", up, serving))
		}
	}
}
