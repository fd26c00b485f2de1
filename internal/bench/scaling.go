//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// scaling is how Limpet's cost grows with what it holds. All figures should stay
// flat, but for a pick and a sweep, which should stay so for each backend.
type scaling struct {
	Requests []result   `json:"requests"` // pinned ones, 1,000 clients; Case is the number of backends
	Messages []result   `json:"messages"` // echoes; Case is the number of tunnels
	Baseline []result   `json:"baseline"` // the same at nginx, if there is one: sockets have their price there, too
	Backends []backcost `json:"backends"`
}

// backcost is what a number of backends costs.
type backcost struct {
	Backends int     `json:"backends"`
	Pick     float64 `json:"pickNanoseconds"`   // to find a new home for a key, by rendezvous hashing
	Sweep    float64 `json:"sweepMicroseconds"` // processor time to check the health of all once, on new connections
	Kept     float64 `json:"keptMicroseconds"`  // the same with -health-keepalive
}

// scale returns the medians of rounds like the one that measure makes.
func scale(rounds int, measure func() (*scaling, error)) (*scaling, error) {
	var all []*scaling
	for range rounds {
		s, err := measure()
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	m := &scaling{}
	for i := range all[0].Requests {
		m.Requests = append(m.Requests, medians(each(all, func(s *scaling) result { return s.Requests[i] })))
	}
	for i := range all[0].Messages {
		m.Messages = append(m.Messages, medians(each(all, func(s *scaling) result { return s.Messages[i] })))
	}
	for i := range all[0].Baseline {
		m.Baseline = append(m.Baseline, medians(each(all, func(s *scaling) result { return s.Baseline[i] })))
	}
	for i, b := range all[0].Backends {
		m.Backends = append(m.Backends, backcost{
			Backends: b.Backends,
			Pick:     median(each(all, func(s *scaling) float64 { return s.Backends[i].Pick })),
			Sweep:    median(each(all, func(s *scaling) float64 { return s.Backends[i].Sweep })),
			Kept:     median(each(all, func(s *scaling) float64 { return s.Backends[i].Kept })),
		})
	}
	return m, nil
}

// scaling measures once with these numbers of backends, and with these numbers of tunnels
// to the backends that run already. The baseline may be nil.
func (b *bench) scaling(ctx context.Context, gateway, baseline *peer, running []string, backends, tunnels []int) (*scaling, error) {
	s := &scaling{}
	patient := *gateway // checks don't disturb the requests that are measured
	patient.command = limpetChecking("1h")
	for _, n := range backends {
		cost, err := b.backcost(ctx, gateway, &patient, n, s)
		if err != nil {
			return nil, err
		}
		s.Backends = append(s.Backends, cost)
	}
	for _, n := range tunnels {
		c := &scene{name: fmt.Sprint(n), play: func(t *trial) error { return t.echo(64, n) }}
		r, err := b.try(ctx, gateway, c, running)
		if err != nil {
			return nil, err
		}
		s.Messages = append(s.Messages, r)
		if baseline != nil {
			if r, err = b.try(ctx, baseline, c, running); err != nil {
				return nil, err
			}
			s.Baseline = append(s.Baseline, r)
		}
	}
	return s, nil
}

func (b *bench) backcost(ctx context.Context, gateway, patient *peer, n int, s *scaling) (backcost, error) {
	cost := backcost{Backends: n}
	nodes, addrs, err := b.backends(n)
	if err != nil {
		return cost, err
	}
	defer nodes.Stop()
	r, err := b.try(ctx, patient, &scene{name: fmt.Sprint(n), play: func(t *trial) error { return t.fetch(1000, poller) }}, addrs)
	if err != nil {
		return cost, err
	}
	s.Requests = append(s.Requests, r)
	if cost.Sweep, err = b.sweep(ctx, gateway, addrs); err != nil {
		return cost, err
	}
	if cost.Kept, err = b.sweep(ctx, variant(gateway, "-health-keepalive"), addrs); err != nil {
		return cost, err
	}
	cost.Pick, err = pick(addrs, max(b.Time/4, 10*time.Millisecond))
	return cost, err
}

// sweep returns the processor time, in microseconds, of checking all backends once.
func (b *bench) sweep(ctx context.Context, gateway *peer, addrs []string) (cost float64, err error) {
	_, err = b.try(ctx, gateway, &scene{name: "health checks", play: func(t *trial) error {
		// The first checks open the connections, if they are kept.
		if err := t.settle(time.Second); err != nil {
			return err
		}
		before, err := t.gateway.CPU()
		if err != nil {
			return err
		}
		began := time.Now()
		if err := t.settle(max(time.Second, b.Time)); err != nil {
			return err
		}
		after, err := t.gateway.CPU()
		cost = float64((after - before).Nanoseconds()) / 1e3 / time.Since(began).Seconds() // one sweep a second
		return err
	}}, addrs)
	return cost, err
}

// pick measures in this process, for this long, and returns nanoseconds.
func pick(addrs []string, d time.Duration) (float64, error) {
	var all []*balancer.Backend
	for i, addr := range addrs {
		backend, err := balancer.NewBackend(fmt.Sprint("node", i), "http://"+addr, 1)
		if err != nil {
			return 0, err
		}
		all = append(all, backend)
	}
	pool, err := balancer.NewPool(nil, all...)
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequest("GET", "http://bench.example/", nil)
	if err != nil {
		return 0, err
	}
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprint("client ", i)
	}
	var n int
	began := time.Now()
	for time.Since(began) < d {
		for _, key := range keys {
			if _, err := pool.Pick(r, "", key); err != nil {
				return 0, err
			}
		}
		n += len(keys)
	}
	return float64(time.Since(began).Nanoseconds()) / float64(n), nil
}
