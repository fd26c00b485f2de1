package main

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/limpet-go/limpet/balancer"
)

// drainTime is what clients of a draining backend are spread over.
const drainTime = 5 * time.Second

// demo is what the page looks at the pool with, and what it breaks things with.
type demo struct {
	pool     *balancer.Pool
	backends []*backend

	mu     sync.Mutex
	events []event
}

// An event is a change of a backend's state, as the pool told it.
type event struct {
	Seq     int       `json:"seq"`
	Time    time.Time `json:"time"`
	Backend string    `json:"backend"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	Why     string    `json:"why"`
}

// backendStatus is one backend as the page shows it.
type backendStatus struct {
	ID       string `json:"id"`
	Hue      int    `json:"hue"`
	Address  string `json:"address"`
	State    string `json:"state"`    // the pool's word: up, draining, down
	Clients  int64  `json:"clients"`  // tunnels, as the pool counts them
	Alive    bool   `json:"alive"`    // whether the process would run, were it one
	Drained  bool   `json:"drained"`  // the operator drains or has drained it
	LeavesIn int64  `json:"leavesIn"` // milliseconds until the drain's deadline
}

func (d *demo) routes(r chi.Router) {
	r.Get("/pool", d.show)
	r.Route("/backends/{id}", func(r chi.Router) {
		// Other sites' pages must not kill our backends.
		r.Use(http.NewCrossOriginProtection().Handler)
		r.Post("/{verb:kill|revive|drain|undrain}", d.act)
	})
}

// changed is for Pool.OnChange.
func (d *demo) changed(c balancer.Change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, event{len(d.events) + 1, c.Time, c.Backend.ID(), c.From.String(), c.To.String(), c.Why})
}

// show is polled by the page. A few backends make a few hundred bytes; a service with many watchers would push.
func (d *demo) show(w http.ResponseWriter, _ *http.Request) {
	var all struct {
		Backends []backendStatus `json:"backends"`
		Events   []event         `json:"events"`
	}
	for _, b := range d.backends {
		p := d.pool.Get(b.id)
		s := backendStatus{ID: b.id, Hue: b.hue, Address: p.URL().Host, State: p.State().String(), Clients: p.InFlight(), Alive: b.alive()}
		if w := p.Wish(); w.State == balancer.Draining {
			s.Drained = true
			s.LeavesIn = max(0, time.Until(w.Since.Add(w.Within)).Milliseconds())
		}
		all.Backends = append(all.Backends, s)
	}
	d.mu.Lock()
	all.Events = append([]event{}, d.events[max(0, len(d.events)-20):]...) // never null
	d.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(all)
}

// act does what a button of the page says.
func (d *demo) act(w http.ResponseWriter, r *http.Request) {
	var b *backend
	for _, one := range d.backends {
		if one.id == chi.URLParam(r, "id") {
			b = one
		}
	}
	if b == nil {
		http.NotFound(w, r)
		return
	}
	var err error
	switch chi.URLParam(r, "verb") {
	case "kill":
		b.kill()
	case "revive":
		err = b.start()
	case "drain":
		err = d.pool.Drain(b.id, drainTime)
	case "undrain":
		err = d.pool.Undrain(b.id)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
