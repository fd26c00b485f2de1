package metrics

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/limpet-go/limpet/balancer"
)

// backends have the counts of the backends in a pool, by ID: a backend that was removed
// and added again goes on counting. What still ends at a backend that was removed is
// counted for no backend, so that there are never more series than backends.
type backends struct {
	pool                *balancer.Pool
	none                *backend // for requests without a backend, and for backends that were removed
	duration, firstByte *prometheus.HistogramVec

	mu   sync.Mutex // held to replace byID, which is never changed
	byID atomic.Pointer[map[string]*backend]
}

// backend has the counts of one backend. The arrays are in the order of the labels' values
// in labels.go.
type backend struct {
	id                                    string
	answers                               [len(classes)]atomic.Int64
	pins                                  [len(outcomes)]atomic.Int64
	failures                              [len(failures)]atomic.Int64
	aborts                                [len(aborters)]atomic.Int64
	received, sent, retries, redispatches atomic.Int64
	unknown, opened                       atomic.Int64
	closed                                [sides][len(closeCodes)]atomic.Int64
	bytes, messages                       [len(directions)]atomic.Int64
	changes                               [len(states)]atomic.Int64
	duration, firstByte                   prometheus.Observer
}

func newBackends(pool *balancer.Pool) *backends {
	s := &backends{
		pool:      pool,
		duration:  prometheus.NewHistogramVec(requestDuration, []string{"backend"}),
		firstByte: prometheus.NewHistogramVec(requestFirstByte, []string{"backend"}),
	}
	s.none = s.make("")
	s.byID.Store(&map[string]*backend{})
	for b := range pool.All() {
		s.of(b)
	}
	return s
}

func (s *backends) make(id string) *backend {
	return &backend{id: id, duration: s.duration.WithLabelValues(id), firstByte: s.firstByte.WithLabelValues(id)}
}

// of returns the counts of b, or those of no backend if b is nil or was removed.
func (s *backends) of(b *balancer.Backend) *backend {
	if b == nil {
		return s.none
	}
	if known := (*s.byID.Load())[b.ID()]; known != nil {
		return known
	}
	if s.pool.Get(b.ID()) == nil {
		return s.none
	}
	s.tidy()
	if known := (*s.byID.Load())[b.ID()]; known != nil {
		return known
	}
	return s.none // it was removed meanwhile
}

// tidy makes byID have the backends that the pool has now.
func (s *backends) tidy() map[string]*backend {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.byID.Load()
	now := make(map[string]*backend, len(old))
	for b := range s.pool.All() {
		known := old[b.ID()]
		if known == nil {
			known = s.make(b.ID())
		}
		now[b.ID()] = known
	}
	if maps.Equal(old, now) {
		return old
	}
	for id := range old {
		if now[id] == nil {
			s.duration.DeleteLabelValues(id)
			s.firstByte.DeleteLabelValues(id)
		}
	}
	s.byID.Store(&now)
	return now
}
