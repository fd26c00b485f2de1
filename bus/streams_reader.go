package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// A reader reads the streams for the subscriptions of a [Streams]. It lives from
// the first subscription to the last one.
type reader struct {
	bus   *Streams
	users int // under bus.mu
	ctx   context.Context
	stop  context.CancelFunc
	bell  Subscription

	mu      sync.Mutex
	streams map[string]*stream // by key
	due     []*stream          // to read
}

// A stream is one that is wanted. It is under reader.mu.
type stream struct {
	topic, key string
	subs       map[*streamsSubscription]*place
	placed     bool     // at is known
	at         position // up to which it is read
	rung       streamID // the newest message that was heard of since the last page
	due        bool     // to be read
	reading    bool
}

const (
	// pageSize is the number of messages that are read of a stream at once.
	pageSize = 256
	// batchSize is the number of streams that are read at once.
	batchSize = 128
)

// join starts the reader for the first subscription.
func (s *Streams) join() (*streamsSubscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader == nil {
		bell, err := s.bell.Subscribe(context.Background()) // to nothing yet: it doesn't wait
		if err != nil {
			return nil, err
		}
		r := &reader{bus: s, bell: bell, streams: map[string]*stream{}}
		r.ctx, r.stop = context.WithCancel(context.Background())
		go r.listen() // until bell is closed
		s.reader = r
	}
	s.reader.users++
	sub := &streamsSubscription{bus: s, reader: s.reader, places: map[string]*place{}, behind: map[*place]bool{}}
	sub.limit = s.Queue
	return sub, nil
}

// leave ends the reader with the last subscription.
func (s *Streams) leave(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.users--; r.users == 0 {
		r.stop()
		r.bell.Close()
		s.reader = nil
	}
}

// listen has streams read that have rung, or may have.
func (r *reader) listen() {
	for {
		m, err := r.bell.Next(r.ctx)
		var gap *Gap
		switch {
		case err == nil:
			id, _ := parseStreamID(string(m.Data)) // 0 rings for nothing
			r.ring(m.Topic, id)
		case errors.As(err, &gap):
			r.ringAll(gap.Topics)
		default:
			return
		}
	}
}

func (r *reader) ring(key string, id streamID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st := r.streams[key]; st != nil && id.compare(st.rung) > 0 {
		st.rung = id
		if st.placed && !st.reading && id.compare(st.at.id) > 0 {
			r.want(st)
		}
	}
	r.start()
}

// ringAll rings for keys, or for all streams if there are none.
func (r *reader) ringAll(keys []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if keys == nil {
		keys = slices.Collect(maps.Keys(r.streams))
	}
	for _, key := range keys {
		if st := r.streams[key]; st != nil {
			r.want(st)
		}
	}
	r.start()
}

// want has st read. r.mu is held.
func (r *reader) want(st *stream) {
	if !st.due {
		st.due = true
		r.due = append(r.due, st)
	}
}

// start starts to read what is due and isn't being read. r.mu is held.
func (r *reader) start() {
	var batch []*stream
	r.due = slices.DeleteFunc(r.due, func(st *stream) bool {
		if st.reading {
			return false
		}
		st.due, st.reading = false, true
		batch = append(batch, st)
		return true
	})
	for some := range slices.Chunk(batch, batchSize) {
		go r.read(some) // until they are read, or stop
	}
}

// read reads what is new in some streams, again until that works. Another node's
// trouble doesn't hold up the others: they are read apart from then on.
func (r *reader) read(batch []*stream) {
	// A connection that is dead without a word must not take long, nor a page
	// be too much for the time that there is.
	count, limit := pageSize, deadAfter/4
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		if batch = r.readOnce(batch, count, limit); len(batch) == 0 {
			return
		}
		count, limit = max(1, count/2), min(2*limit, deadAfter)
		select {
		case <-time.After(pause):
		case <-r.ctx.Done():
			return
		}
	}
}

// readOnce returns the streams that it couldn't read.
func (r *reader) readOnce(batch []*stream, count int, limit time.Duration) (failed []*stream) {
	ctx, cancel := context.WithTimeout(r.ctx, limit)
	defer cancel()
	r.settle(ctx, batch)
	var reqs []request
	r.mu.Lock()
	batch = slices.DeleteFunc(batch, func(st *stream) bool {
		if !st.placed {
			failed = append(failed, st)
			return true
		}
		reqs = append(reqs, request{st.key, st.at})
		return false
	})
	r.mu.Unlock()
	pages := readPages(ctx, r.bus.Client, reqs, count)

	r.mu.Lock()
	defer r.mu.Unlock()
	for i, st := range batch {
		if pages[i].err != nil {
			failed = append(failed, st)
			continue
		}
		st.reading = false
		r.deliver(st, pages[i])
	}
	r.start()
	return slices.DeleteFunc(failed, func(st *stream) bool { return len(st.subs) == 0 })
}

// deliver hands a page to the subscriptions. r.mu is held.
func (r *reader) deliver(st *stream, p page) {
	st.at = p.at
	for _, e := range p.entries {
		st.at = st.at.next(e)
	}
	if p.more || st.rung.compare(st.at.id) > 0 {
		r.want(st)
	}
	st.rung = streamID{} // what isn't in the next page either is lost: it isn't read for again
	for s, pl := range st.subs {
		switch {
		case !pl.known || s.behind[pl]:
		case pl.at.id != p.from.id && p.gap != nil:
			s.fallBehind(pl) // it finds out what is missing for it
		default:
			s.offer(pl, p)
		}
	}
}

// settle finds out where streams and subscriptions begin that don't know yet. It
// is called once their bells are sure to ring, or will say so.
func (r *reader) settle(ctx context.Context, batch []*stream) error {
	var unsettled []*stream
	r.mu.Lock()
	for _, st := range batch {
		if st.unsettled() {
			unsettled = append(unsettled, st)
		}
	}
	r.mu.Unlock()
	if len(unsettled) == 0 {
		return nil
	}
	pipe := r.bus.Client.Pipeline()
	ends := make([]position, len(unsettled))
	parse := make([]func() error, len(unsettled))
	for i, st := range unsettled {
		cmd := pipe.XInfoStream(ctx, st.key)
		parse[i] = func() error {
			a, err := aboutStream(cmd)
			ends[i] = a.end()
			return err
		}
	}
	pipe.Exec(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	var failed error
	for i, st := range unsettled {
		if err := parse[i](); err != nil {
			failed = fmt.Errorf("bus: Streams: subscribe to %q: %w", st.topic, err)
			continue
		}
		st.settle(ends[i])
		if st.rung.compare(st.at.id) > 0 {
			r.want(st)
		}
	}
	r.start()
	return failed
}

// unsettled tells whether it or a subscription has no place in it yet.
func (st *stream) unsettled() bool {
	if !st.placed {
		return true
	}
	for _, pl := range st.subs {
		if !pl.known {
			return true
		}
	}
	return false
}

// settle gives a place to who has none. Those that have one read on from there.
func (st *stream) settle(end position) {
	if !st.placed {
		st.placed, st.at = true, end
	}
	for s, pl := range st.subs {
		if !pl.known {
			pl.known, pl.at = true, end
		}
		if pl.late || pl.at.id != st.at.id {
			s.fallBehind(pl)
		}
	}
}
