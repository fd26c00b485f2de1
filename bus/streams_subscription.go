package bus

import (
	"context"
	"fmt"
	"time"
)

// A streamsSubscription is one subscriber of a [Streams].
type streamsSubscription struct {
	queue
	bus    *Streams
	reader *reader

	// These are under reader.mu.
	places map[string]*place // by key; nil once it is closed
	behind map[*place]bool   // the places from which Next reads on by itself
}

// A place is the place of a subscription in a stream. It is in behind or not:
//
//	known  behind  what it is                         who moves it on
//	-----  ------  ---------------------------------  --------------------------------------
//	false  no      nowhere yet                        settle: to the end of the stream
//	true   no      where the reader is, whose pages   offer: behind, when the queue is full
//	               are put into the queue             or a gap is to be found out about
//	true   yes     further back: the reader's pages   catchUp, in Next: it reads a page, and
//	               pass it by                         again until it is where the reader is
//
// All of it is under reader.mu. A place begins behind, and known, if SubscribeFrom has
// named a message.
type place struct {
	topic, key string
	known      bool // at is known
	late       bool // Add has returned an error: a Gap is due once at is known
	at         position
	seen       tracker // to drop copies
}

// Add implements [Subscription].
func (s *streamsSubscription) Add(ctx context.Context, topics ...string) error {
	after := make(map[string]*streamID, len(topics))
	for _, topic := range topics {
		after[topic] = nil
	}
	return s.add(ctx, after)
}

// add subscribes to the topics that are the keys of after: behind the entry with that ID,
// or at the end if it is nil.
func (s *streamsSubscription) add(ctx context.Context, after map[string]*streamID) error {
	ctx, cancel := context.WithTimeout(ctx, s.bus.timeout())
	defer cancel()
	streams, err := s.enter(after)
	if err != nil {
		return err
	}
	var keys []string
	for _, st := range streams {
		keys = append(keys, st.key)
	}
	err = s.reader.bell.Add(ctx, keys...)
	if err == nil {
		err = s.recall(ctx, after)
	}
	if err == nil {
		err = s.reader.settle(ctx, streams)
	}
	s.entered(streams)
	return err
}

// enter puts the subscription on topics, and returns their streams.
func (s *streamsSubscription) enter(after map[string]*streamID) (streams []*stream, err error) {
	r := s.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.places == nil {
		return nil, ErrClosed
	}
	for topic, id := range after {
		key := s.bus.key(topic)
		st := r.streams[key]
		if st == nil {
			st = &stream{topic: topic, key: key, subs: map[*streamsSubscription]*place{}}
			r.streams[key] = st
		}
		if st.subs[s] == nil {
			pl := &place{topic: topic, key: key}
			if id != nil {
				pl.known, s.behind[pl] = true, true
				pl.at = position{id: *id, entry: true, added: -1}
				if *id == (streamID{}) {
					pl.at = position{}
				}
			}
			st.subs[s], s.places[key] = pl, pl
		}
		streams = append(streams, st)
	}
	return streams, nil
}

// entered looks after topics that were removed while they were added, and after those that
// have no place because Redis didn't answer in time: a read will place them, and a Gap
// follows.
func (s *streamsSubscription) entered(streams []*stream) {
	r := s.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, st := range streams {
		if r.streams[st.key] == nil {
			r.bell.Remove(r.ctx, st.key)
		} else if pl := st.subs[s]; pl != nil && !pl.known {
			pl.late = true
			r.want(st)
		}
	}
	r.start()
}

// recalled is the number of entries that are read before the one behind which a
// subscription begins, to recognize copies of them that come later.
const recalled = 128

// recall reads the entries before those that after names, so that their copies are
// recognized.
func (s *streamsSubscription) recall(ctx context.Context, after map[string]*streamID) error {
	for topic, id := range after {
		if id == nil {
			continue
		}
		key := s.bus.key(topic)
		raw, err := s.bus.Client.Do(ctx, "xrevrange", key, id.String(), "-", "count", recalled).Slice()
		if err != nil {
			return fmt.Errorf("bus: Streams: read back from %v of %q: %w", id, topic, err)
		}
		s.reader.mu.Lock()
		pl := s.places[key]
		for i := len(raw) - 1; i >= 0 && pl != nil; i-- {
			if e, err := parseEntry(raw[i]); err == nil && e.mark != nil {
				pl.seen.first(*e.mark, e.id.ms)
			}
		}
		s.reader.mu.Unlock()
	}
	return nil
}

// Remove implements [Subscription]. It returns no error.
func (s *streamsSubscription) Remove(_ context.Context, topics ...string) error {
	s.reader.mu.Lock()
	defer s.reader.mu.Unlock()
	for _, topic := range topics {
		s.remove(s.bus.key(topic))
	}
	return nil
}

// remove takes the subscription off a stream. reader.mu is held.
func (s *streamsSubscription) remove(key string) {
	if s.places[key] == nil {
		return
	}
	r := s.reader
	st := r.streams[key]
	delete(s.behind, s.places[key])
	delete(s.places, key)
	delete(st.subs, s)
	if len(st.subs) == 0 {
		delete(r.streams, key)
		r.bell.Remove(r.ctx, key)
	}
}

// Close implements [Subscription].
func (s *streamsSubscription) Close() error {
	s.end()
	s.reader.mu.Lock()
	defer s.reader.mu.Unlock()
	if s.places == nil {
		return nil
	}
	for key := range s.places {
		s.remove(key)
	}
	s.places = nil
	s.bus.leave(s.reader)
	return nil
}

// offer puts the entries of a page that are behind a place into the queue, and moves the
// place on. If they don't all fit, the place is behind from then on. reader.mu is held.
func (s *streamsSubscription) offer(pl *place, p page) {
	if pl.late {
		p.gap = &Gap{Lost: -1, Err: errLate}
	}
	if p.gap != nil {
		if s.full() {
			s.fallBehind(pl)
			return
		}
		gap := *p.gap
		gap.Topics = []string{pl.topic}
		s.bus.counts.gaps.Add(1)
		s.push(item{gap: &gap})
		pl.at, pl.late = p.at, false
	}
	for _, e := range p.entries {
		if e.id.compare(pl.at.id) <= 0 {
			continue
		}
		if s.full() {
			s.fallBehind(pl)
			return
		}
		pl.at = pl.at.next(e)
		if e.data == nil || e.mark != nil && !pl.seen.first(*e.mark, e.id.ms) {
			continue
		}
		s.bus.counts.delivered.Add(1)
		s.push(item{Message: Message{Topic: pl.topic, ID: e.text, Data: e.data}})
	}
}

// fallBehind makes Next read on from a place by itself. reader.mu is held.
func (s *streamsSubscription) fallBehind(pl *place) {
	s.behind[pl] = true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awake()
}

// Next implements [Subscription].
func (s *streamsSubscription) Next(ctx context.Context) (Message, error) {
	for count := min(pageSize, s.size()); ; {
		m, wait, err := s.next()
		if wait == nil {
			return m, err
		}
		var pause <-chan time.Time
		if pl, req := s.straggler(); pl != nil {
			began := time.Now()
			if s.catchUp(ctx, pl, req, count) == nil {
				continue
			}
			s.bus.publisher.Failed(ctx, s.bus.Client, began, deadAfter)
			count = max(1, count/2) // the page may have been too large for the time that there is
			pause = time.After(retryPause)
		}
		select {
		case <-wait:
		case <-pause:
		case <-ctx.Done():
			return Message{}, ctx.Err()
		}
	}
}

// straggler returns a place that is behind and what to read for it, or nil.
func (s *streamsSubscription) straggler() (*place, request) {
	s.reader.mu.Lock()
	defer s.reader.mu.Unlock()
	for pl := range s.behind {
		return pl, request{pl.key, pl.at}
	}
	return nil, request{}
}

// catchUp reads a page behind a place that is behind the reader.
func (s *streamsSubscription) catchUp(ctx context.Context, pl *place, req request, count int) error {
	ctx, cancel := context.WithTimeout(ctx, deadAfter)
	defer cancel()
	p := readPages(ctx, s.bus.Client, []request{req}, count)[0]
	if p.err != nil {
		return p.err
	}
	r := s.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.streams[pl.key]
	if st == nil || st.subs[s] != pl {
		return nil
	}
	delete(s.behind, pl)
	s.offer(pl, p)
	if st.placed && pl.at.id.compare(st.at.id) < 0 {
		s.behind[pl] = true
	}
	return nil
}
