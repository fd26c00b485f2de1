package middleware

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// A view is what a replica sees of its backends. Each replica publishes its own, for the
// others' status pages and metrics, about every viewEvery and soon after a change of a backend.
// Only Options.Rebalance decides by it.
//
//	{"v":1, "from":"ID", "name":"gw1", "backends":[{"id":"a", "state":"up", "requests":3, "tunnels":120}]}
//
// It has a topic of its own, so that replicas of a version without views don't see it.
type view struct {
	Version  int              `json:"v"`
	From     string           `json:"from"`
	Name     string           `json:"name,omitempty"`
	Backends []ReplicaBackend `json:"backends,omitempty"`
}

const (
	viewEvery    = 5 * time.Second        // about how often a replica publishes its view
	viewEveryMin = 100 * time.Millisecond // while clients are rebalanced
	viewPause    = 500 * time.Millisecond // between two views at least, otherwise
	viewFor      = 15 * time.Second
	viewWithin   = time.Second // the time over which replicas spread what they tell a new one
	viewsMax     = 256         // how many replicas are remembered
	viewMax      = 256 << 10   // how many bytes a view may have
	viewMost     = 1000        // how many backends it tells of
)

// views are what was heard of other replicas lately.
type views struct {
	mu  sync.Mutex
	all map[string]ReplicaStats // by ID
}

// put keeps v, and reports whether its sender is new.
func (s *views) put(v view) (fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if _, known := s.all[v.From]; known || len(s.all) < viewsMax {
		if s.all == nil {
			s.all = make(map[string]ReplicaStats)
		}
		s.all[v.From] = ReplicaStats{ID: v.From, Name: v.Name, Heard: time.Now(), Backends: v.Backends}
		return !known
	}
	return false
}

// list returns the replicas that were heard lately, by name.
func (s *views) list() []ReplicaStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	all := slices.AppendSeq(make([]ReplicaStats, 0, len(s.all)), maps.Values(s.all)) // not nil, as there is a Bus
	slices.SortFunc(all, func(a, b ReplicaStats) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return all
}

// expire forgets replicas that were not heard for viewFor. The caller holds mu.
func (s *views) expire() {
	maps.DeleteFunc(s.all, func(_ string, r ReplicaStats) bool { return time.Since(r.Heard) > viewFor })
}

// rebalances reports whether this replica needs others' views, and they its own, more often.
func (r *replicas) rebalances() bool {
	return r.gateway.rebalancer != nil && r.gateway.rebalancer.runs.Load()
}

// viewTopic is the topic of views.
func (r *replicas) viewTopic() string { return r.topic + ":view" }

// showViewSoon has the next view published sooner, since a backend's state has changed, or one that
// is drained has become empty: on another replica somebody may wait for that.
func (r *replicas) showViewSoon() {
	if r.rebalances() {
		r.nextView.Reset(0)
		return
	}
	r.nextView.Reset(max(0, time.Until(r.viewed.Add(viewPause))))
}

// showView publishes this replica's view, and schedules the next. Nobody is told of a
// failure: announce tells of the same trouble.
func (r *replicas) showView(ctx context.Context) {
	next := viewEvery - rand.N(viewEvery/10)
	if r.rebalances() {
		next = max(viewEveryMin, r.gateway.rebalancer.every)
	}
	r.nextView.Reset(next)
	r.viewed = time.Now()
	s := r.gateway.Stats()
	v := view{Version: noteVersion, From: r.id, Name: s.Name}
	for _, b := range s.Backends[:min(len(s.Backends), viewMost)] {
		v.Backends = append(v.Backends, ReplicaBackend{
			ID: b.Backend.ID(), State: b.Backend.State().String(), Requests: b.Requests, Tunnels: b.Tunnels,
		})
	}
	if r.gateway.rebalancer != nil {
		r.gateway.rebalancer.view(v.Backends)
	}
	data, _ := json.Marshal(v) // can't fail: names and numbers
	_ = r.bus.Publish(ctx, r.viewTopic(), data)
}

// receiveView handles a message on the topic of views.
func (r *replicas) receiveView(data []byte) {
	var v view
	if len(data) > viewMax || json.Unmarshal(data, &v) != nil || v.Version != noteVersion || !isName(v.From) || v.From == r.id {
		return
	}
	v.Backends = v.Backends[:min(len(v.Backends), viewMost)]
	if len(v.Name) > maxName {
		v.Name = v.Name[:maxName]
	}
	if r.views.put(v) {
		r.nextView.Reset(rand.N(viewWithin)) // the new one wants to know of this one
	}
}
