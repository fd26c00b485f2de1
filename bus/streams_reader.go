package bus

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// A reader reads the streams for all subscriptions of a [Streams]. It lives from the
// first subscription to the last one.
//
// Goroutines: listen hears the bell and makes streams due. A read is started for the
// streams that are due, and ends when it has read them. The Next of a subscription reads
// on its own, from the places of it that are behind the reader.
type reader struct {
	bus   *Streams
	users int // number of subscriptions; under bus.mu
	ctx   context.Context
	stop  context.CancelFunc
	bell  Subscription // to the channels that ring

	mu      sync.Mutex
	streams map[string]*stream // by key
	due     []*stream          // the streams to read next
}

// A stream is a stream that somebody is subscribed to. All of it is under reader.mu. Its
// states:
//
//	placed  due    reading  what it is                 who moves it on
//	------  -----  -------  -------------------------  -----------------------------------
//	false   false  false    its end isn't known yet    settle: it is placed at the end;
//	                                                   entered makes it due if that fails
//	true    false  false    read up to at              ring, ringAll and settle: it is due
//	any     true   false    to be read                 start: a read begins
//	any     false  true     being read                 readOnce: read up to at, or again
//	                                                   after a pause
//	any     true   true     being read, and has rung   readOnce: to be read
//	                        meanwhile
type stream struct {
	topic, key string
	subs       map[*streamsSubscription]*place
	placed     bool     // at is known
	at         position // up to which it was read
	rung       streamID // the newest entry that has rung since the last page
	rings      []ring   // the entries that have rung since the read began
	ringBytes  int      // the bytes of their data
	due        bool     // it is in reader.due
	reading    bool     // a read has it
}

const (
	// pageSize is the number of entries that are read of a stream at once.
	pageSize = 256
	// batchSize is the number of streams that are read at once.
	batchSize = 128
)

// join returns a new subscription without topics. The first one starts the reader.
func (s *Streams) join() (*streamsSubscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader == nil {
		bell, err := s.bell.Subscribe(context.Background()) // to no topic, so it doesn't wait
		if err != nil {
			return nil, err
		}
		r := &reader{bus: s, bell: bell, streams: map[string]*stream{}}
		r.ctx, r.stop = context.WithCancel(context.Background())
		go r.listen() // ends when bell is closed
		s.reader = r
	}
	s.reader.users++
	sub := &streamsSubscription{bus: s, reader: s.reader, places: map[string]*place{}, behind: map[*place]bool{}}
	sub.limit, sub.counts = s.Queue, &s.counts
	s.counts.opened(&sub.queue)
	return sub, nil
}

// leave takes a subscription off the reader, which ends with the last one. reader.mu may
// be held: where both are held, bus.mu is taken second.
func (s *Streams) leave(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.users--; r.users == 0 {
		r.stop()
		r.bell.Close()
		s.reader = nil
	}
}

// listen makes streams due that have rung, or may have.
func (r *reader) listen() {
	for {
		m, err := r.bell.Next(r.ctx)
		var gap *Gap
		switch {
		case err == nil:
			r.ring(m.Topic, parseRing(m.Data, r.bus.database()))
		case errors.As(err, &gap):
			r.ringAll(gap.Topics)
		default:
			return
		}
	}
}

// ring passes on an entry that has rung, if it is the one behind those that were passed on.
// If it is further on, the stream is due. An entry that rings while its stream is read is
// looked at when that is done.
func (r *reader) ring(key string, b ring) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.streams[key]
	if st == nil || b.entry.id.compare(st.rung) <= 0 {
		return
	}
	switch {
	case !st.placed || st.due || st.reading:
		st.rung = b.entry.id
		st.keep(b)
	case b.entry.id.compare(st.at.id) <= 0:
	case b.follows(st.at):
		r.pass(st, page{from: st.at, at: st.at, entries: []entry{b.entry}})
	default:
		st.rung = b.entry.id
		r.want(st)
		r.start()
	}
}

// ringAll makes the streams of keys due, or all streams if keys is nil.
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

// want makes st due. r.mu is held.
func (r *reader) want(st *stream) {
	if !st.due {
		st.due = true
		r.due = append(r.due, st)
	}
}

// start starts reads for the streams that are due and aren't being read. r.mu is held.
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
		go r.read(some) // ends when they are read, or with stop
	}
}

// read reads a page of each of some streams. Those that it couldn't read it tries again,
// with smaller pages and more time, until it has. So streams on a node that is in trouble
// don't hold up those on other nodes.
func (r *reader) read(batch []*stream) {
	// A dead connection must not take long at first, and a page must not be too large
	// for the time that there is.
	count, limit := pageSize, deadAfter/4
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		began := time.Now()
		if batch = r.readOnce(batch, count, limit); len(batch) == 0 {
			return
		}
		r.bus.publisher.Failed(r.ctx, r.bus.Client, began, limit)
		count, limit = max(1, count/2), min(2*limit, deadAfter)
		select {
		case <-time.After(pause):
		case <-r.ctx.Done():
			return
		}
	}
}

// readOnce reads a page of each stream, and delivers it. It returns the streams that it
// couldn't read and that are still wanted.
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

// deliver passes on a page that was read, and what has rung meanwhile. r.mu is held.
func (r *reader) deliver(st *stream, p page) {
	r.pass(st, p)
	r.replay(st)
	if p.more || st.rung.compare(st.at.id) > 0 {
		r.want(st)
	}
	st.rung = streamID{} // an entry that isn't in the next page either is lost: that mustn't go on for ever
}

// pass offers a page to the subscriptions of a stream. r.mu is held.
func (r *reader) pass(st *stream, p page) {
	st.at = p.at
	for _, e := range p.entries {
		st.at = st.at.next(e)
	}
	for s, pl := range st.subs {
		switch {
		case !pl.known || s.behind[pl]:
		case pl.at.id != p.from.id && p.gap != nil:
			s.fallBehind(pl) // its own read finds out what is missing for it
		default:
			s.offer(pl, p)
		}
	}
}
