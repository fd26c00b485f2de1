package main

import (
	"math/rand/v2"
	"slices"

	"github.com/limpet-go/limpet/balancer"
)

// A spreadResult says how unevenly the sessions lie on the backends.
type spreadResult struct {
	name  string
	worst float64 // the most loaded backend's sessions over the mean
	least float64 // the least loaded one's
}

// spread places all sessions: by each picker, in front of which are eight replicas that know
// nothing of each other's sessions, and by each hash.
func (w world) spread() []spreadResult {
	results := []spreadResult{
		w.picked("LeastConn", func() balancer.Picker { return &balancer.LeastConn{} }, 0.05),
		w.picked("TwoChoices", func() balancer.Picker { return &balancer.TwoChoices{} }, 1),
		w.picked("RoundRobin", func() balancer.Picker { return &balancer.RoundRobin{} }, 1),
		w.picked("Random", func() balancer.Picker { return &balancer.Random{} }, 1),
	}
	at := w.clients()
	place := hashes()
	place = slices.Insert(place, 1, hash{"Limpet addr.", func(backends []int, down map[int]bool) func(client) int {
		return rendezvous(backends, down, func(c client) string { return string(c.addr[:]) })
	}})
	for _, h := range place {
		loads := make([]int, w.backends)
		home := h.build(upTo(w.backends), nil)
		for i := range w.sessions {
			loads[home(at(i))]++
		}
		results = append(results, spreadOf(h.name, loads))
	}
	return results
}

// picked places the sessions, and then replaces as many of them, drawn at random, as churn
// says: sessions that end are what makes loads drift apart.
func (w world) picked(name string, picker func() balancer.Picker, churn float64) spreadResult {
	const replicas = 8
	var pools [replicas]*balancer.Pool
	for i := range pools {
		pools[i] = newPool(picker(), upTo(w.backends))
	}
	homes := make([]*balancer.Backend, w.sessions)
	begin := func(i int) {
		b, err := pools[i%replicas].Pick(nil, "", "")
		if err != nil {
			panic(err)
		}
		b.Begin()
		homes[i] = b
	}
	for i := range homes {
		begin(i)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range int(churn * float64(w.sessions)) {
		i := r.IntN(len(homes))
		homes[i].End()
		begin(i)
	}
	loads := make([]int, w.backends)
	for _, pool := range pools {
		for b := range pool.All() {
			loads[number(b)] += int(b.InFlight())
		}
	}
	return spreadOf(name, loads)
}

func spreadOf(name string, loads []int) spreadResult {
	sum := 0
	for _, n := range loads {
		sum += n
	}
	mean := float64(sum) / float64(len(loads))
	return spreadResult{name, float64(slices.Max(loads)) / mean, float64(slices.Min(loads)) / mean}
}
