package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// A deploy restarts all backends, a twentieth of them at a time: each is drained within
// half a minute, and is back after ten seconds more.
const (
	deployBatches = 20
	deployDrain   = 30 * time.Second
	deployDown    = 10 * time.Second
)

// lifetime is the mean of the sessions', which end by themselves and are followed by others.
const lifetime = time.Hour

// A deployResult says how the sessions lie on the backends after a deploy.
type deployResult struct {
	name     string
	least    float64       // the emptiest backend's share of the mean, right behind the deploy
	half     time.Duration // from then until the emptiest has half of the mean
	nine     time.Duration // and nine tenths
	moved    float64       // how often a session was moved, on average, by drains and to balance
	emptiest []float64     // its share of the mean, each ten seconds from the deploy's begin
}

func (w world) deploy() []deployResult {
	return []deployResult{
		w.roll("left alone", 0),
		w.roll("rebalanced within 2 min", 2*time.Minute),
	}
}

// roll restarts all backends in batches, and watches for two hours. within is Rebalance's
// setting, 0 for none.
func (w world) roll(name string, within time.Duration) deployResult {
	r := rand.New(rand.NewPCG(5, 6))
	res := deployResult{name: name}
	n := make([]float64, w.backends) // sessions
	up := make([]bool, w.backends)
	mean := float64(w.sessions) / float64(w.backends)
	for b := range n {
		n[b], up[b] = mean, true
	}
	batch := func(second int) (int, time.Duration) {
		each := int((deployDrain + deployDown) / time.Second)
		return second / each, time.Duration(second%each) * time.Second
	}
	var moved float64
	end := deployBatches * (deployDrain + deployDown)
	watch := end + 2*time.Hour
	for at := time.Duration(0); at < watch; at += time.Second {
		now, into := batch(int(at / time.Second))
		var homeless, taking float64
		for b := range n {
			mine := b*deployBatches/w.backends == now
			up[b] = !mine
			ended := chance(r, n[b], 1-math.Exp(-time.Second.Seconds()/lifetime.Seconds()))
			n[b] -= ended
			homeless += ended
			if mine {
				// The turns are spread evenly over what is left of the drain.
				leaving := n[b]
				if left := deployDrain - into; left > time.Second {
					leaving = chance(r, n[b], float64(time.Second)/float64(left))
				}
				n[b] -= leaving
				homeless, moved = homeless+leaving, moved+leaving
			}
			if up[b] {
				taking++
			}
		}
		for b := range n {
			if up[b] {
				n[b] += homeless / taking
			}
		}
		if within > 0 && at >= end { // Rebalance waits while a backend is drained
			moved += rebalance(n, up, time.Second.Seconds()/within.Seconds())
		}
		emptiest := slices.Min(n) / mean
		if at%(10*time.Second) == 0 {
			res.emptiest = append(res.emptiest, emptiest)
		}
		switch since := at - end; {
		case since < 0:
		case since == 0:
			res.least, res.half, res.nine = emptiest, -1, -1
		default:
			if res.half < 0 && emptiest >= 0.5 {
				res.half = since
			}
			if res.nine < 0 && emptiest >= 0.9 {
				res.nine = since
			}
		}
	}
	res.moved = moved / float64(w.sessions)
	return res
}

// chance returns how many of n things happen that each happen with this probability, by the
// normal approximation.
func chance(r *rand.Rand, n, p float64) float64 {
	return min(n, max(0, n*p+r.NormFloat64()*math.Sqrt(n*p*(1-p))))
}
